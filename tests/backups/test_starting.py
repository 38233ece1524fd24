"""What a start decides, for everything that can lie here and there."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yral_chat.services.backups.catalogue import Entry, Generation, Reason, unmoved_since
from yral_chat.services.backups.starting import Begin, Continue, End, Here, LocalState, Refuse, Restore, There, decide

PLACE = "s3://bucket/chat"
OURS, OTHERS = "database-ours", "database-others"
THIS, COPIED = "this folder", "the folder that this is a copy of"
GENERATIONS = tuple(Generation(f"generation-{n}", f"2026-01-0{n}T00:00:00.000000Z", "first") for n in (1, 2))
OLD, NEW = GENERATIONS


def there(newest: Generation | None = NEW, last_txid: int = 10, database_id: str = OURS) -> There:
    return There(PLACE, Entry(database_id, GENERATIONS), newest=newest, last_txid=last_txid if newest else 0)


def here(
    database_id: str | None = OURS,
    generation: str | None = NEW.id,
    last_txid: int | None = 10,
    target: str = PLACE,
    owner: str = THIS,
) -> Here:
    return Here(database_id, LocalState(target, OURS, generation, owner=owner), last_txid, owner=THIS)


def restored(generation: str = NEW.id, txid: int = 10, database_id: str = OURS) -> Here:
    """Somebody has restored it when the target had come so far."""
    return Here(database_id, LocalState(PLACE, database_id, None, End(generation, txid)))


@pytest.mark.parametrize(
    ("local", "remote", "expected"),
    [
        pytest.param(Here(), There(PLACE), Begin("first"), id="nothing anywhere"),
        pytest.param(Here(OURS), There(PLACE), Begin("first"), id="a database without a backup"),
        pytest.param(Here(), there(), Restore(OURS, NEW, 10), id="an empty machine"),
        pytest.param(Here(), there(OLD), Restore(OURS, OLD, 10), id="the newest generation that has something"),
        pytest.param(here(), there(), Continue(NEW), id="as it was left"),
        pytest.param(here(last_txid=12), there(), Continue(NEW), id="the last changes had not arrived"),
        pytest.param(here(owner=COPIED), there(), Begin("moved"), id="a copy of the whole folder"),
        pytest.param(here(owner=""), there(), Begin("moved"), id="left by a version that knows no owners"),
        pytest.param(restored(), there(), Begin("restored"), id="after a restore"),
        pytest.param(restored(txid=0), there(last_txid=0), Begin("restored"), id="after one of before what is missing"),
        pytest.param(here(), there(OLD, last_txid=0), Begin("first"), id="begun after that, and nothing has arrived"),
        pytest.param(restored(database_id=OTHERS), there(), Begin("restored"), id="after one of what was there before"),
        pytest.param(here(), there(None), Begin("first"), id="nothing has ever arrived"),
        pytest.param(here(last_txid=None), there(OLD), Begin("first"), id="nothing of what was begun has arrived"),
        pytest.param(here(last_txid=3), there(OLD), Begin("first"), id="nor of what was written since"),
    ],
)
def test_what_is_plain(local: Here, remote: There, expected: object) -> None:
    assert decide(local, remote, is_new=False) == expected


@pytest.mark.parametrize(
    ("local", "remote", "words"),
    [
        pytest.param(Here(), There(PLACE, has_other_objects=True), "no current.json", id="the marker is gone"),
        pytest.param(Here(OURS), There(PLACE, has_other_objects=True), "no current.json", id="files of somebody"),
        pytest.param(here(), There(PLACE), "is empty now", id="a disk that is not mounted"),
        pytest.param(Here(), there(None), "holds nothing of it", id="a marker without a backup"),
        pytest.param(Here(), there(last_txid=0), "nothing of it is there", id="the newest generation is missing"),
        pytest.param(here(), there(last_txid=0), "nothing of it is there", id="the one that was written here"),
        pytest.param(
            here(generation=OLD.id), there(last_txid=0), "nothing of it is there", id="one of another machine"
        ),
        pytest.param(here(OTHERS), there(), "another database", id="somebody else's backup"),
        pytest.param(Here(""), there(), "another database", id="a database of an earlier version"),
        pytest.param(here(last_txid=9), there(), "may be older", id="an older copy of the whole folder"),
        pytest.param(here(last_txid=9, owner=COPIED), there(), "may be older", id="an older copy elsewhere"),
        pytest.param(here(last_txid=None), there(), "may be older", id="a copy without Litestream's own folder"),
        pytest.param(here(generation=OLD.id), there(), "may be older", id="another machine has gone on"),
        pytest.param(restored(txid=9), there(), "may be older", id="another machine has gone on since the restore"),
        pytest.param(restored(OLD.id), there(), "may be older", id="a copy of before the start after a restore"),
        pytest.param(here(generation=None), there(), "may be older", id="a restore of nobody knows when"),
        pytest.param(restored(OLD.id, database_id=OTHERS), there(), "another database", id="the same, of another"),
        pytest.param(Here(OURS), there(), "may be older", id="a copy of the file alone"),
        pytest.param(here(target="s3://other"), there(), "may be older", id="backed up to another place meanwhile"),
    ],
)
def test_what_is_refused(local: Here, remote: There, words: str) -> None:
    decision = decide(local, remote, is_new=False)
    assert isinstance(decision, Refuse)
    assert words in decision.message
    assert PLACE in decision.message
    assert decide(local, remote, is_new=True) == Begin("asked")


locals_ = st.builds(
    Here,
    st.sampled_from([None, "", OURS, OTHERS]),
    st.one_of(
        st.none(),
        st.builds(
            LocalState,
            st.sampled_from([PLACE, "s3://other"]),
            st.sampled_from([OURS, OTHERS]),
            st.sampled_from([None, OLD.id, NEW.id, "unknown"]),
            st.one_of(st.none(), st.builds(End, st.sampled_from([OLD.id, NEW.id]), st.integers(0, 20))),
            st.sampled_from([THIS, COPIED, ""]),
        ),
    ),
    st.one_of(st.none(), st.integers(0, 20)),
    st.just(THIS),
)
remotes = st.one_of(
    st.builds(There, st.just(PLACE), has_other_objects=st.booleans()),
    st.builds(there, st.sampled_from([None, OLD, NEW]), st.integers(0, 20), st.sampled_from([OURS, OTHERS])),
)


@given(locals_, remotes)
def test_nothing_is_ever_written_over(local: Here, remote: There) -> None:
    """Whatever lies where: only the folder that wrote the newest state goes on writing there, and only an empty one
    is restored into."""
    decision = decide(local, remote, is_new=False)
    is_backup_of_something = remote.entry is not None or remote.has_other_objects
    if local.database_id is None and is_backup_of_something:
        assert isinstance(decision, Restore | Refuse)
    if isinstance(decision, Restore):
        assert local.database_id is None
        assert remote.last_txid > 0
    if isinstance(decision, Continue):
        assert local.state is not None
        assert local.last_txid is not None
        assert local.last_txid >= remote.last_txid
        assert local.state.owner == local.owner
        assert remote.last_txid > 0
        assert remote.entry is not None
        assert local.state.target == remote.name
        assert local.database_id == local.state.database_id == remote.entry.database_id
    if isinstance(decision, Begin) and remote.newest is not None:
        assert local.state is not None
        assert local.state.target == remote.name
        assert local.database_id == local.state.database_id
        if local.state.generation is None:
            assert local.state.replaces is not None
            assert local.state.replaces.generation == remote.newest.id
            assert local.state.replaces.txid >= remote.last_txid
        elif decision == Begin("moved"):
            assert local.state.owner != local.owner
            assert local.state.generation == remote.newest.id
            assert local.last_txid is not None
            assert local.last_txid >= remote.last_txid
        else:
            assert (local.state.generation, remote.newest) == (NEW.id, OLD)


def test_every_message_says_what_to_do() -> None:
    for local, remote in product([Here(), here(OTHERS), Here(OURS)], [There(PLACE, has_other_objects=True), there()]):
        decision = decide(local, remote, is_new=False)
        if isinstance(decision, Refuse):
            assert "--new" in decision.message


@pytest.mark.parametrize(
    ("reasons", "since"),
    [
        (("first",), 0),
        (("first", "moved", "moved"), 0),
        (("first", "restored", "moved"), 1),
        (("first", "moved", "restored"), 2),
        (("moved", "moved"), 0),  # what came before them was forgotten
    ],
)
def test_a_folder_that_was_only_moved_gets_no_new_day_to_prove_its_backup(
    reasons: tuple[Reason, ...], since: int
) -> None:
    generations = [Generation(f"g{at}", f"2026-11-2{at}T10:00:00Z", reason) for at, reason in enumerate(reasons)]
    for earlier in (generations, generations[:-1]):  # one that goes on, and one that has just begun
        assert unmoved_since(generations[-1], earlier) == generations[since].begun_at
