import { abandonUploads } from "./attachments.js";
import { App } from "./components/app.js";
import { loadInfluencers } from "./conversations.js";
import { explain } from "./http.js";
import { loadInbox } from "./inbox.js";
import { goDark, goLive } from "./live.js";
import { html, render } from "./preact.js";
import { resumeSession, signOut, userId, whenRefused } from "./session.js";
import { resetState, updateSession } from "./store.js";
import { abandonTurns } from "./turns.js";

const actions = {
  onStart: start,
  onSignedIn: signedIn,
  onNotIssuing: () => updateSession({ canIssue: false }),
  onSignOut() {
    signOut();
    signedOut("");
  },
};

async function start() {
  updateSession({ status: "starting", notice: "" });
  try {
    const { status, canIssue, notice } = await resumeSession();
    updateSession({ canIssue, notice });
    if (status === "signed-in") signedIn();
    else updateSession({ status });
  } catch (error) {
    updateSession({ status: "unreachable", notice: explain(error) });
  }
}

function signedIn() {
  updateSession({ status: "signed-in", userId: userId(), notice: "" });
  goLive(userId());
  loadInfluencers();
  loadInbox();
}

function signedOut(notice) {
  goDark();
  abandonTurns();
  abandonUploads();
  resetState();
  location.hash = "#/";
  updateSession({ status: "signed-out", userId: null, notice });
}

whenRefused(signedOut);
render(html`<${App} actions=${actions} />`, document.getElementById("app"));
start();
