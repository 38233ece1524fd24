from tests.client import Api, text_of


async def test_send_and_stream(api: Api) -> None:
    conversation = await api.open()
    _, reply = await api.said(conversation["id"], "Hello")
    assert reply["content"] == "You said: Hello"
    events = await api.stream(conversation["id"], "Again")
    assert text_of(events) == "You said: Again" == events[-1].data["assistant_message"]["content"]
    history = await api.history(conversation["id"])
    assert [message["sequence"] for message in history] == [1, 2, 3, 4, 5]
