"""The persona that answers when no language model is connected: out of its own data and the user's words.

It is a demonstration, says so, and pretends nothing. The same conversation always gets the same reply.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from zlib import crc32

import msgspec

from yral_chat.clients.language_model import (
    PICTURE_IN_WORDS,
    RECORDING_IN_WORDS,
    CallRecord,
    Completion,
    Delta,
    ModelCall,
    ModelFailure,
    ModelMessage,
    ModelRequest,
    Outcome,
    Persona,
    Usage,
)
from yral_chat.clients.resilience import seconds_left


class Phrases(msgspec.Struct, frozen=True):
    """What the persona says in one language. `{name}`, `{topic}`, `{key}`, `{value}`, `{message}` are filled in."""

    hello: tuple[str, ...]
    openings: tuple[str, ...]
    echoes: tuple[str, ...]  # of the user's own words
    listening: tuple[str, ...]  # instead, when no topic was found
    thanks: tuple[str, ...]
    farewell: tuple[str, ...]
    trait: tuple[str, ...]
    questions: tuple[str, ...]
    suggestion: tuple[str, ...]
    identity: tuple[str, ...]  # for whoever asks what it is
    honesty: tuple[str, ...]
    serious: str
    unseen: str  # instead of a word on a picture
    unheard: str  # instead of a word on a recording that nobody wrote down


ENGLISH = Phrases(
    hello=(
        "Hello, good to see you here!",
        "Hi there, you have come at a good moment!",
        "Hey, how nice of you to drop by!",
    ),
    openings=(
        "Now that is something I can work with.",
        "I was hoping you would bring that up.",
        "Good, let us stay with that for a moment.",
        "You have my full attention.",
        "I hear you, and I am glad you said it.",
    ),
    echoes=("{topic}, you say?", "So, {topic}.", "{topic}: noted, with interest.", "Ah, {topic}."),
    listening=(
        "Take your time and give me one detail to hold on to.",
        "Say a little more, and I will follow.",
        "I am all ears, even for half a thought.",
    ),
    thanks=(
        "You are very welcome, that is what I am here for.",
        "Any time, it was a pleasure.",
        "Gladly, and I mean it.",
    ),
    farewell=(
        "Take good care, I will keep your place warm.",
        "Until next time, and be kind to yourself.",
        "See you soon, the conversation will wait for us.",
    ),
    trait=(
        "They say my {key} is {value}, so you get it undiluted.",
        "If you wonder about my {key}: {value}, always.",
    ),
    questions=(
        "What would a good outcome look like for you?",
        "When did it start to matter to you?",
        "What have you tried so far?",
        "What is the one part you would change first?",
    ),
    suggestion=(
        "You could also ask me this: “{message}”",
        "And if you are curious, try me with “{message}”",
    ),
    identity=(
        "No human here: I am an AI.",
        "I am an AI, not a person.",
    ),
    honesty=(
        "To be open with you: this is the offline demo of {name}, and no language model is connected. "
        "Set GEMINI_API_KEY or OPENAI_BASE_URL, and I will give you real answers.",
        "One honest word: I am the offline demo of {name} and only play with your words, without an AI model behind "
        "me. With GEMINI_API_KEY or OPENAI_BASE_URL set, real answers come.",
    ),
    serious=(
        "This matters too much for a demo, and I am only the offline demo of {name}. Please talk to somebody you "
        "trust now, or call your local emergency number. You do not have to carry this alone."
    ),
    unseen="You sent me a picture, and I have to be honest: without an AI model behind me, I cannot see it.",
    unheard="You sent me a voice message, and I have to be honest: nothing here can listen to it, so please write.",
)

HINGLISH = Phrases(
    hello=("Arre, namaste, kaise ho!", "Hello ji, sahi time pe aaye ho!", "Hey yaar, accha laga tum aaye!"),
    openings=(
        "Arre wah, yeh toh mast baat hai.",
        "Sach bolun, yahi sunna tha.",
        "Accha, ispe thoda ruk ke baat karte hain.",
        "Haan haan, pura dhyan tumhari taraf hai.",
        "Sun liya, aur accha kiya ki bataya.",
    ),
    echoes=("{topic}, haan?", "Toh baat hai {topic} ki.", "{topic}: samajh gaye."),
    listening=(
        "Aaram se, bas ek chhoti si detail batao.",
        "Thoda aur bolo na, sunna hi mera kaam hai.",
        "Aadhi baat bhi chalegi, shuru toh karo.",
    ),
    thanks=("Arre, thank you kaisa, apne log ho.", "Koi baat nahi, mazaa aaya.", "Always yaar, dil se."),
    farewell=(
        "Chalo, apna khayal rakhna.",
        "Phir milte hain, tab tak mast raho.",
        "Theek hai, baat yahin se aage badhayenge.",
    ),
    trait=("Log kehte hain, {key}: {value}, aur sahi kehte hain.", "{key}: {value}, hamesha aur har kisi ke saath."),
    questions=(
        "Tumhare liye best result kya hoga?",
        "Yeh kab se important ho gaya?",
        "Ab tak kya kya try kiya?",
        "Sabse pehle kya badalna chahoge?",
    ),
    suggestion=("Yeh bhi pooch sakte ho: “{message}”", "Aur mann kare toh yeh try karo: “{message}”"),
    identity=(
        "Insaan nahi, main ek AI hoon.",
        "Main ek AI hoon, koi insaan nahi.",
    ),
    honesty=(
        "Ek sach baat: yeh {name} ka offline demo hai, koi language model connected nahi hai. "
        "GEMINI_API_KEY ya OPENAI_BASE_URL set karo, phir asli answers milenge.",
        "Seedhi baat: main {name} ka offline demo hoon, peeche koi AI model nahi hai. "
        "GEMINI_API_KEY ya OPENAI_BASE_URL set karte hi real answers aayenge.",
    ),
    serious=(
        "Yeh baat demo ke liye bahut badi hai, aur main sirf {name} ka offline demo hoon. Please abhi kisi apne se "
        "baat karo, ya local emergency number pe call karo. Tum akele nahi ho."
    ),
    unseen="Photo toh mil gayi, par sach bolun: peeche koi AI model nahi hai, isliye main use dekh nahi sakta.",
    unheard="Voice message mila, par sach bolun: yahan use sunne wala koi nahi hai, toh please likh ke bhejo.",
)

# What a persona of this kind thinks of whatever comes up; the first whose word stands in the category is taken.
THOUGHTS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("fit", "gym", "sport", "yoga", "workout"),
        (
            "Ten honest minutes today beat the perfect hour that never comes.",
            "I would pick one small move, do it well, and count it as a win.",
        ),
    ),
    (
        ("dating", "relationship", "love", "romance"),
        (
            "The way you speak of it says more than any clever first line.",
            "My rule is to be curious first and impressive second.",
        ),
    ),
    (
        ("astro", "tarot", "zodiac"),
        (
            "The stars rarely shout, but this sounds like a sign worth sitting with.",
            "I would look at it under a slow moon, without hurry.",
        ),
    ),
    (
        ("health", "wellness", "medic", "nutrition"),
        (
            "Quiet habits win: water, sleep, a short walk, and a doctor for whatever worries you.",
            "I would go about it gently and one day at a time.",
        ),
    ),
    (
        ("tech", "program", "code", "software", "gadget"),
        (
            "I would take it apart first: what works, what does not, and the smallest thing to try.",
            "The nice thing is that every error message is a clue.",
        ),
    ),
    (
        ("cook", "food", "chef", "recipe", "kitchen"),
        (
            "My way is always the same: warm the pan, salt with courage, and taste twice.",
            "Whatever it is, we begin with what is in your kitchen.",
        ),
    ),
    (
        ("study", "learn", "educat", "exam", "tutor", "teach"),
        (
            "Split it into three small questions, and the mountain becomes a staircase.",
            "Explaining it aloud shows at once where the gaps are.",
        ),
    ),
    (
        ("",),
        (
            "I like how it sounds when you say it, and I want the small details.",
            "There is a story in that, I can tell.",
        ),
    ),
)

HINGLISH_THOUGHTS = (
    "Ek chhota step aaj, baaki kal dekhte hain.",
    "Isme ek kahani hai, mujhe pata hai.",
    "Dil se karo toh aadha kaam ho gaya.",
)

_GREETING = re.compile(r"^\W*(hi+|hey+|hello+|hola|namaste|namaskar|salaam|good (morning|afternoon|evening))\b", re.I)
_THANKS = re.compile(r"\b(thanks?|thank you|thx|dhanyavaad|shukriya)\b", re.I)
_FAREWELL = re.compile(r"\b(bye+|good ?bye|good ?night|see you|alvida)\b", re.I)
# Words that ask what it is, and words that do so only when the persona is addressed ("you") or in few words.
_ABOUT_ITSELF = re.compile(r"\b(ai|a\.i|bot|chatbot|robot|offline|demo|api key|gemini|openai|chatgpt|gpt|llm)\b", re.I)
_MAYBE_ABOUT_ITSELF = re.compile(
    r"\b(model|real|human|person|machine|computer|program|key|who are you|what are you)\b", re.I
)
# The same question in Hindi and Spanish, which the persona answers in its own language.
_ABOUT_ITSELF_ELSEWHERE = re.compile(
    r"\b(insaan|insan|robot|machine|asli)\b.*\b(ho|hai|hain)\b|\b(tum|aap)\b.*\b(insaan|insan|asli|machine)\b"
    r"|इंसान|इनसान|मशीन|रोबोट|एआई|(तुम|आप)\s+कौन"
    r"|\beres\b.*\b(persona|humano|humana|máquina|maquina|real|ia)\b|\bquién eres\b|\bquien eres\b",
    re.I | re.S,
)
_ADDRESSED = re.compile(r"\b(you|your|u|this|tum|tumhara|aap|(talking|speaking|chatting) (to|with))\b", re.I)
_SERIOUS = re.compile(r"\b(suicid\w*|kill(ing)? myself|end my life|want to die|hurt(ing)? myself|self[- ]harm)\b", re.I)
_TRANSCRIBED = re.compile(r"\[Transcribed: (.*)\]", re.S)
_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_SENTENCE = re.compile(r".+?[.!?…।](?=\s|$)", re.S)

# Words that carry no topic, and verbs that stand before one.
_FILLERS = """
    a about after again all also am an and any anything are as ask at aur back bad be because been before being
    best better bhi but by bye came can chahiye come could day did do does doing done feel feeling find for from
    get give go going good got had hai hain has have he hello help her here hey hi him his hoga hoon how i idea
    if in into is it its just ka kaise karo ke keep ki know kuch kya learn let like little long look lot love
    made main make many may maybe me mein mera meri might more most much mujhe must my need new nice no not now
    of off ok okay on one only or other our out over please plz really said say see she should show small so
    some something sometimes start stop such sure take talk teach tell than thank thanks that the their them
    then there these they thing things think this those time to today tomorrow too tried try trying tum tumhara
    two under up us use very want wants was way we well were what when where which while who why will wish with
    wondering work would yaar yeah yes yet you your yours aap accha i'm i've i'd i'll don't can't it's that's
    what's
"""
_FILLER_WORDS = frozenset(_FILLERS.split())


class OfflinePersona:
    """A `LanguageModel` without a model. `words_per_second` is the pace of its speech; 0 means at once."""

    provider = "offline"
    model = "offline-persona"

    def __init__(self, words_per_second: float) -> None:
        self._seconds_per_word = 1 / words_per_second if words_per_second > 0 else 0.0

    async def stream(self, request: ModelRequest, calls: list[ModelCall]) -> AsyncIterator[Delta | Completion]:
        words = re.findall(r"\S+\s*", reply_to(request))
        outcome: Outcome = "completed" if len(words) <= request.max_output_tokens else "truncated"
        words = words[: request.max_output_tokens]
        heard = len(request.system.split()) + sum(len(message.text.split()) for message in request.messages)
        with CallRecord(calls, self.provider, self.model) as record:
            record.call.usage = Usage(prompt=heard)
            started = time.monotonic()
            for position, word in enumerate(words):
                await self._wait_until(started + position * self._seconds_per_word, request.deadline)
                record.token()
                record.call.usage = Usage(prompt=heard, output=position + 1)
                yield Delta(word)
            record.close(outcome)
            reason = "stop" if outcome == "completed" else "length"
            yield Completion(outcome, reason, record.call.usage, self.provider, self.model)

    async def close(self) -> None:
        """Holds nothing open."""

    async def _wait_until(self, moment: float, deadline: float) -> None:
        wait = moment - time.monotonic()
        if wait > seconds_left(deadline) or seconds_left(deadline) <= 0:
            raise ModelFailure("timeout", "no time left", is_outage=False)
        if wait > 0:
            await asyncio.sleep(wait)


def reply_to(request: ModelRequest) -> str:
    """The persona's reply: two to five sentences, never the same as its last one."""
    said = [message.text for message in request.messages if message.role == "assistant"]
    last = said[-1].strip() if said else None
    seed = _seed(request)
    # Neighbouring seeds choose other phrases, so that this ends at the second try.
    variants = (_Reply(request, seed + step).text() for step in range(60))
    return next(text for text in variants if text != last)


def _seed(request: ModelRequest) -> int:
    seed = crc32(f"{request.persona.id}\0{len(request.messages)}\0{_last_words(request.messages)}".encode())
    return seed + request.attempt - 1


def _last_words(messages: Sequence[ModelMessage]) -> str:
    return messages[-1].text if messages and messages[-1].role == "user" else ""


def _without_marks(text: str) -> str:
    """The words of a message without the marks of contract section 8.6, which nobody said."""
    for mark in (RECORDING_IN_WORDS, PICTURE_IN_WORDS, "[Voice message]"):
        text = text.replace(mark, "")
    return _TRANSCRIBED.sub(r"\1", text).strip()


class _Reply:
    """One way to answer; `seed` chooses among the phrases."""

    def __init__(self, request: ModelRequest, seed: int) -> None:
        self._persona = request.persona
        self._messages = request.messages
        self._seed = seed
        last = _last_words(request.messages)
        self._heard = _without_marks(last)
        self._is_unheard = RECORDING_IN_WORDS in last
        self._is_unseen = PICTURE_IN_WORDS in last or bool(request.messages and request.messages[-1].pictures)
        self._phrases = HINGLISH if _speaks_hinglish(request.persona) else ENGLISH

    def text(self) -> str:
        if _SERIOUS.search(self._heard):
            parts = [self._phrases.serious, *([] if self._seed % 2 else [self._choose(self._phrases.listening)])]
        elif not self._heard and (self._is_unseen or self._is_unheard):
            parts = [*self._opening_honesty(), self._suggestion()]
        elif _asks_what_it_is(self._heard):
            parts = [
                self._choose(self._phrases.identity),
                self._choose(self._phrases.honesty),
                self._suggestion(),
            ]
        elif _FAREWELL.search(self._heard):
            parts = [self._choose(self._phrases.farewell), *self._opening_honesty(), self._suggestion()]
        elif _THANKS.search(self._heard):
            parts = [self._choose(self._phrases.thanks), *self._opening_honesty(), self._suggestion()]
        elif _GREETING.search(self._heard):
            parts = [*self._greeting(), *self._opening_honesty(), self._suggestion()]
        else:
            parts = self._conversation()
        # After a serious word a remark on what it cannot do would be out of place.
        if not _SERIOUS.search(self._heard):
            parts = [*([self._phrases.unseen] if self._is_unseen else []), *parts]
            parts = [*([self._phrases.unheard] if self._is_unheard else []), *parts]
        sentences = [part.format(name=self._persona.display_name) for part in parts]
        return " ".join(sentence[:1].upper() + sentence[1:] for sentence in sentences)

    def _conversation(self) -> list[str]:
        """The longer they talk, the more the persona says of itself and the less it leads."""
        topic = _topic(self._heard)
        if topic:
            parts = [self._choose(self._phrases.echoes, topic=topic), self._choose(self._thoughts())]
        else:
            parts = [self._choose(self._phrases.openings), self._choose(self._phrases.listening)]
        if honesty := self._opening_honesty():
            return [*parts, *honesty, self._suggestion()]
        turn = sum(message.role == "user" for message in self._messages)
        if turn % 3 == 0 and (trait := self._trait()):
            parts.append(trait)
        elif topic and self._seed % 3 == 0:
            parts.insert(0, self._choose(self._phrases.openings))
        parts.append(self._suggestion() if turn % 2 == 0 else self._choose(self._phrases.questions))
        return parts

    def _greeting(self) -> list[str]:
        """Greets back: the first time as the persona greets everybody."""
        own = _first_sentence(self._persona.greeting)
        has_greeted = any(message.role == "assistant" for message in self._messages)
        return [_verbatim(own) if own and not has_greeted else self._choose(self._phrases.hello)]

    def _opening_honesty(self) -> list[str]:
        """In the first reply; the greeting that opens a conversation is not one."""
        greeting = self._persona.greeting.strip()
        has_replied = any(m.role == "assistant" and m.text.strip() != greeting for m in self._messages)
        return [] if has_replied else [self._choose(self._phrases.honesty)]

    def _suggestion(self) -> str:
        """One of the persona's suggested messages that was not said yet, else a question."""
        said = {message.text.strip() for message in self._messages}
        open_ones = [message for message in self._persona.suggested_messages if message.strip() not in said]
        if not open_ones:
            return self._choose(self._phrases.questions)
        return self._choose(self._phrases.suggestion, message=open_ones[self._seed % len(open_ones)])

    def _trait(self) -> str | None:
        traits = sorted(self._persona.traits.items())
        if not traits:
            return None
        key, value = traits[self._seed % len(traits)]
        return self._choose(self._phrases.trait, key=key.replace("_", " "), value=value.strip().rstrip("."))

    def _thoughts(self) -> tuple[str, ...]:
        if self._phrases is HINGLISH:
            return HINGLISH_THOUGHTS
        category = self._persona.category.lower()
        return next(thoughts for words, thoughts in THOUGHTS if any(word in category for word in words))

    def _choose(self, phrases: Sequence[str], **values: str) -> str:
        phrase = phrases[self._seed % len(phrases)]
        for key, value in values.items():
            phrase = phrase.replace("{" + key + "}", _verbatim(value))
        return phrase


def _verbatim(text: str) -> str:
    """Survives `str.format`: people may write braces."""
    return text.replace("{", "{{").replace("}", "}}")


def _first_sentence(text: str) -> str:
    text = text.strip()
    match = _SENTENCE.match(text)
    if match is None:
        return text and f"{text}."
    return match[0]


def _asks_what_it_is(text: str) -> bool:
    if _ABOUT_ITSELF.search(text) or _ABOUT_ITSELF_ELSEWHERE.search(text):
        return True
    is_meant = _ADDRESSED.search(text) is not None or len(text.split()) <= 3
    return is_meant and _MAYBE_ABOUT_ITSELF.search(text) is not None


def _speaks_hinglish(persona: Persona) -> bool:
    described = " ".join((persona.category, *persona.traits.values())).lower()
    return "hinglish" in described or "hindi" in described


def _topic(text: str) -> str:
    """The longest run of words that mean something, at most three; "" when there is none."""
    runs: list[list[str]] = [[]]
    end = 0
    for match in _WORD.finditer(text):
        is_apart = text[end : match.start()].strip() != ""
        end = match.end()
        if match[0].lower().replace("’", "'") in _FILLER_WORDS or len(match[0]) > 40:
            runs.append([])
            continue
        if is_apart or len(runs[-1]) == 3:
            runs.append([])
        runs[-1].append(match[0])
    best = max(runs, key=lambda run: (len(run), sum(map(len, run))))
    return " ".join(best)
