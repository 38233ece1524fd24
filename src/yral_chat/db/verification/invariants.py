"""What holds in a healthy database after every commit: one statement each, which finds the rows where it does not.

The SQL is that of both databases. Every statement gives one text per wrong row, in a column `id`. `:erasing` are the
people whose erasure is under way (it goes bit by bit), and `{settled}` leaves out conversations `c` of theirs;
`:unrecorded` is what ended turns have changed the number of messages by, and no counter knows yet.
"""

from typing import NamedTuple

SETTLED = "c.user_id NOT IN :erasing AND coalesce(c.other_user_id, '') NOT IN :erasing"


class Invariant(NamedTuple):
    """`sentence` says what holds, to somebody who reads that it does not."""

    name: str
    sentence: str
    sql: str


_MESSAGES = (
    Invariant(
        "messages.conversation",
        "Every message belongs to a conversation.",
        """SELECT id FROM messages AS m
           WHERE NOT EXISTS (SELECT 1 FROM conversations AS c WHERE c.id = m.conversation_id)""",
    ),
    Invariant(
        "messages.seq_unique",
        "No two messages of a conversation have the same number.",
        "SELECT conversation_id AS id FROM messages GROUP BY conversation_id, seq HAVING count(*) > 1",
    ),
    Invariant(
        "messages.seq_rising",
        "Messages of a conversation are numbered in the order of their creation, a millisecond apart at least.",
        """SELECT id FROM (
             SELECT id, created_at, lag(created_at) OVER (PARTITION BY conversation_id ORDER BY seq) AS before
             FROM messages) AS m
           WHERE created_at < before + 1000""",
    ),
    Invariant(
        "messages.last_seq",
        "A conversation knows the highest number and the latest time of its messages.",
        """SELECT c.id FROM conversations AS c JOIN (
             SELECT conversation_id, max(seq) AS seq, max(created_at) AS time FROM messages GROUP BY conversation_id
           ) AS m ON m.conversation_id = c.id
           WHERE m.seq > c.last_seq OR m.time > c.last_message_time""",
    ),
    Invariant(
        "messages.key_unique",
        "What a sender sends twice under one key is stored once.",
        """SELECT conversation_id AS id FROM messages WHERE client_message_id IS NOT NULL
           GROUP BY conversation_id, sender_id, client_message_id HAVING count(*) > 1""",
    ),
    Invariant(
        "messages.state",
        "Error, end, attempts and listing of a message are those of its status.",
        """SELECT id FROM messages
           WHERE status NOT IN ('pending', 'streaming', 'delivered', 'read', 'failed', 'cancelled')
             OR (error_code IS NOT NULL) <> (status IN ('failed', 'cancelled'))
             OR (coalesce(error_code, '') = 'CANCELLED') <> (status = 'cancelled')
             OR (completed_at IS NULL) <> (status IN ('pending', 'streaming'))
             OR completed_at < created_at OR attempt < 1 OR last_attempt < attempt
             OR is_listed <> (role <> 'assistant' OR status IN ('delivered', 'read')
                              OR (status IN ('failed', 'cancelled') AND content <> ''))""",
    ),
    Invariant(
        "messages.one_reply",
        "A message to a persona has exactly one reply.",
        """SELECT reply_to AS id FROM messages WHERE reply_to IS NOT NULL GROUP BY reply_to HAVING count(*) > 1
           UNION ALL
           SELECT m.id FROM messages AS m JOIN conversations AS c ON c.id = m.conversation_id
           WHERE c.type = 'ai_chat' AND m.role = 'user' AND {settled}
             AND NOT EXISTS (SELECT 1 FROM messages AS r WHERE r.reply_to = m.id)""",
    ),
    Invariant(
        "messages.reply_to",
        "A reply belongs to a message of a person before it in the same conversation.",
        """SELECT r.id FROM messages AS r JOIN conversations AS c ON c.id = r.conversation_id
             LEFT JOIN messages AS m ON m.id = r.reply_to
           WHERE r.reply_to IS NOT NULL AND {settled}
             AND (m.id IS NULL OR m.conversation_id <> r.conversation_id OR m.seq >= r.seq OR m.role <> 'user')""",
    ),
    Invariant(
        "messages.pending",
        "A reply that is being written has a turn that will end it.",
        """SELECT m.id FROM messages AS m JOIN conversations AS c ON c.id = m.conversation_id
           WHERE m.status IN ('pending', 'streaming') AND {settled}
             AND NOT EXISTS (SELECT 1 FROM turns AS t WHERE t.id = m.id AND t.kind = 'reply')""",
    ),
)

_TURNS = (
    Invariant(
        "turns.reply",
        "A turn that writes a reply has its message, its question, and the attempt that is under way.",
        """SELECT t.id FROM turns AS t
             LEFT JOIN conversations AS c ON c.id = t.conversation_id
             LEFT JOIN messages AS r ON r.id = t.id AND r.conversation_id = t.conversation_id
             LEFT JOIN messages AS m ON m.id = t.user_message_id AND m.conversation_id = t.conversation_id
           WHERE t.kind = 'reply' AND (r.id IS NULL OR m.id IS NULL OR r.reply_to IS DISTINCT FROM m.id
             OR c.user_id IS DISTINCT FROM t.user_id OR r.seq <> t.seq OR r.last_attempt <> t.attempt
             OR (r.status IN ('pending', 'streaming')) = t.is_replacement)""",
    ),
    Invariant(
        "turns.picture",
        "A picture is being made exactly as long as there is a turn that makes it.",
        """SELECT t.id FROM turns AS t LEFT JOIN picture_requests AS p ON p.id = t.id
           WHERE t.kind = 'picture' AND (p.id IS NULL OR p.status <> 'running' OR p.attempt <> t.attempt
             OR p.conversation_id <> t.conversation_id)
           UNION ALL
           SELECT p.id FROM picture_requests AS p JOIN conversations AS c ON c.id = p.conversation_id
           WHERE p.status = 'running' AND {settled}
             AND NOT EXISTS (SELECT 1 FROM turns AS t WHERE t.id = p.id AND t.kind = 'picture')""",
    ),
    Invariant(
        "picture_requests.done",
        "A picture that was made is a message, and one that was not has an error.",
        """SELECT p.id FROM picture_requests AS p JOIN conversations AS c ON c.id = p.conversation_id
             LEFT JOIN messages AS m ON m.id = p.id AND m.conversation_id = p.conversation_id AND m.origin = 'image'
           WHERE {settled} AND ((p.status = 'done') <> (m.id IS NOT NULL)
             OR (p.status = 'failed') <> (p.error_code IS NOT NULL))""",
    ),
)

_CONVERSATIONS = (
    Invariant(
        "conversations.kind",
        "A conversation is that of a person with a persona, or that of two people.",
        """SELECT id FROM conversations WHERE type NOT IN ('ai_chat', 'human_chat')
             OR (type = 'ai_chat') <> (influencer_id IS NOT NULL)
             OR (type = 'human_chat') <> (other_user_id IS NOT NULL)
             OR (type = 'ai_chat' AND pair IS NOT NULL)""",
    ),
    Invariant(
        "conversations.unique",
        "A person has one conversation with a persona, and two people have one with each other.",
        """SELECT min(id) AS id FROM conversations WHERE influencer_id IS NOT NULL
           GROUP BY user_id, influencer_id HAVING count(*) > 1
           UNION ALL
           SELECT min(id) AS id FROM conversations WHERE pair IS NOT NULL GROUP BY pair HAVING count(*) > 1""",
    ),
    Invariant(
        "conversations.message_count",
        "A conversation counts the messages that its history lists.",
        """SELECT c.id FROM conversations AS c LEFT JOIN (
             SELECT conversation_id, count(*) FILTER (WHERE role <> 'system') AS messages,
               count(*) FILTER (WHERE role = 'system') AS banners
             FROM messages WHERE is_listed GROUP BY conversation_id
           ) AS m ON m.conversation_id = c.id
           WHERE {settled}
             AND (c.message_count <> coalesce(m.messages, 0) OR c.banner_count <> coalesce(m.banners, 0))""",
    ),
    Invariant(
        "conversations.last_message",
        "A conversation shows the newest message of its history as the last one.",
        """SELECT c.id FROM conversations AS c LEFT JOIN messages AS m ON m.id = (
             SELECT id FROM messages AS n WHERE n.conversation_id = c.id AND n.is_listed AND n.role <> 'system'
               AND n.status IN ('delivered', 'read', 'cancelled') ORDER BY n.seq DESC LIMIT 1)
           WHERE {settled} AND (c.last_id IS DISTINCT FROM m.id OR c.last_seq_shown IS DISTINCT FROM m.seq
             OR c.last_content IS DISTINCT FROM substr(m.content, 1, 1000) OR c.last_role IS DISTINCT FROM m.role
             OR c.last_type IS DISTINCT FROM m.message_type OR c.last_created_at IS DISTINCT FROM m.created_at
             OR c.last_status IS DISTINCT FROM m.status OR c.last_sender_id IS DISTINCT FROM m.sender_id)""",
    ),
    Invariant(
        "memories.seq",
        "Nothing is remembered, summed up or forgotten from messages that a conversation never had.",
        """SELECT k.conversation_id AS id FROM (
             SELECT conversation_id, source_seq AS seq FROM memories
             UNION ALL SELECT conversation_id, through_seq FROM forgotten_memories
             UNION ALL SELECT conversation_id, through_seq FROM summaries
           ) AS k LEFT JOIN conversations AS c ON c.id = k.conversation_id
           WHERE c.id IS NULL OR k.seq > c.last_seq""",
    ),
    Invariant(
        "media_uses.message",
        "A file that a message uses is known as one in use, in the conversation of that message.",
        """SELECT u.key AS id FROM media_uses AS u LEFT JOIN messages AS m ON m.id = u.message_id
             LEFT JOIN media_objects AS o ON o.key = u.key
           WHERE m.conversation_id IS DISTINCT FROM u.conversation_id OR o.key IS NULL OR NOT o.is_used""",
    ),
)

_PARTICIPANTS = (
    Invariant(
        "participants.sides",
        "A conversation has two sides: its user's, and that of its persona or of the other person.",
        """SELECT c.id FROM conversations AS c LEFT JOIN participants AS p ON p.conversation_id = c.id
           GROUP BY c.id, c.user_id, c.other_user_id, c.influencer_id, c.type
           HAVING count(p.principal_id) <> 2
             OR count(*) FILTER (WHERE p.principal_id = c.user_id AND NOT p.is_persona) <> 1
             OR count(*) FILTER (WHERE p.principal_id = coalesce(c.influencer_id, c.other_user_id)
                                   AND p.is_persona = (c.influencer_id IS NOT NULL)) <> 1
             OR count(*) FILTER (WHERE p.type <> c.type) > 0""",
    ),
    Invariant(
        "participants.updated_at",
        "Both sides of a conversation stand in their inboxes where its last change puts it.",
        """SELECT c.id FROM conversations AS c JOIN participants AS p ON p.conversation_id = c.id
           WHERE p.updated_at <> c.updated_at""",
    ),
    Invariant(
        "participants.is_hidden",
        "Somebody sees every conversation, and with a persona nobody hides.",
        """SELECT conversation_id AS id FROM participants GROUP BY conversation_id
           HAVING count(*) FILTER (WHERE NOT is_hidden) = 0
             OR count(*) FILTER (WHERE is_hidden AND type = 'ai_chat') > 0""",
    ),
    Invariant(
        "participants.unread_count",
        "Each side has as many messages unread as the other has delivered and it has not read or deleted.",
        """SELECT c.id FROM conversations AS c JOIN participants AS p ON p.conversation_id = c.id LEFT JOIN (
             SELECT conversation_id, role, count(*) AS unread FROM messages WHERE status = 'delivered'
             GROUP BY conversation_id, role
           ) AS m ON m.conversation_id = c.id AND m.role = CASE WHEN p.is_persona THEN 'user' ELSE 'assistant' END
           WHERE c.type = 'ai_chat' AND p.unread_count <> coalesce(m.unread, 0) AND {settled}
           UNION ALL
           SELECT c.id FROM conversations AS c JOIN participants AS p ON p.conversation_id = c.id
           WHERE c.type = 'human_chat' AND {settled} AND p.unread_count <> CASE WHEN p.is_hidden THEN 0 ELSE (
             SELECT count(*) FROM messages AS m WHERE m.conversation_id = c.id AND m.seq > p.cleared_seq
               AND m.sender_id <> p.principal_id AND m.status = 'delivered') END""",
    ),
    Invariant(
        "participants.cleared_count",
        "A side that has deleted a conversation counts the messages that it deleted.",
        # The side of somebody who was erased is hidden for good: nobody counts there any more.
        """SELECT c.id FROM conversations AS c JOIN participants AS p ON p.conversation_id = c.id
           WHERE {settled} AND (c.type = 'ai_chat' OR c.pair IS NOT NULL OR NOT p.is_hidden) AND p.cleared_count <> (
             SELECT count(*) FROM messages AS m WHERE m.conversation_id = c.id AND m.seq <= p.cleared_seq)""",
    ),
)

_COUNTS = (
    Invariant(
        "counters.conversations",
        "The service counts its conversations.",
        """SELECT 'conversations' AS id WHERE (SELECT count(*) FROM conversations)
             <> (SELECT coalesce(sum(value), 0) FROM counters WHERE name = 'conversations')
              + (SELECT coalesce(sum(conversations), 0) FROM counter_deltas)""",
    ),
    Invariant(
        "counters.messages",
        "The service counts the messages of its conversations.",
        """SELECT 'messages' AS id WHERE (SELECT coalesce(sum(message_count), 0) FROM conversations)
             <> (SELECT coalesce(sum(value), 0) FROM counters WHERE name = 'messages')
              + (SELECT coalesce(sum(all_messages), 0) FROM counter_deltas) + :unrecorded""",
    ),
    Invariant(
        "influencers.counts",
        "A persona counts its conversations, and every message that was ever sent to it.",
        """SELECT i.id FROM influencers AS i LEFT JOIN (
             SELECT c.influencer_id, count(*) AS conversations, sum(m.messages) AS messages
             FROM conversations AS c LEFT JOIN (
               SELECT conversation_id, count(*) AS messages FROM messages WHERE role = 'user' GROUP BY conversation_id
             ) AS m ON m.conversation_id = c.id
             GROUP BY c.influencer_id
           ) AS h ON h.influencer_id = i.id LEFT JOIN (
             SELECT influencer_id, sum(conversations) AS conversations, sum(user_messages) AS messages
             FROM counter_deltas GROUP BY influencer_id
           ) AS d ON d.influencer_id = i.id
           WHERE i.conversation_count + coalesce(d.conversations, 0) <> coalesce(h.conversations, 0)
             OR i.message_count + coalesce(d.messages, 0) < coalesce(h.messages, 0)""",
    ),
    Invariant(
        "principals.counts",
        "A person counts the conversations of their inbox.",
        """SELECT coalesce(n.id, h.id) AS id FROM principals AS n FULL JOIN (
             SELECT principal_id AS id, count(*) FILTER (WHERE type = 'ai_chat') AS ai,
               count(*) FILTER (WHERE type = 'human_chat') AS human
             FROM participants WHERE NOT is_persona AND NOT is_hidden GROUP BY principal_id
           ) AS h ON h.id = n.id
           WHERE coalesce(n.id, h.id) NOT IN :erasing AND (coalesce(n.ai_conversations, 0) <> coalesce(h.ai, 0)
             OR coalesce(n.human_conversations, 0) <> coalesce(h.human, 0))""",
    ),
    Invariant(
        "principals.last_event_seq",
        "A person's events are numbered up to the number that the next one follows.",
        """SELECT e.user_id AS id FROM (SELECT user_id, max(seq) AS seq FROM events GROUP BY user_id) AS e
             LEFT JOIN principals AS n ON n.id = e.user_id
           WHERE n.id IS NULL OR e.seq > n.last_event_seq""",
    ),
    Invariant(
        "usage_days.events",
        "No persona's days come to more than what vendors were asked for it.",
        """SELECT d.subject AS id FROM (
             SELECT subject, sum(prompt_tokens) AS prompt, sum(cached_tokens) AS cached, sum(output_tokens) AS output,
               sum(thinking_tokens) AS thinking, sum(cost) AS cost
             FROM usage_days WHERE kind = 'influencer' GROUP BY subject
           ) AS d LEFT JOIN (
             SELECT influencer_id, sum(prompt_tokens) AS prompt, sum(cached_tokens) AS cached,
               sum(output_tokens) AS output, sum(thinking_tokens) AS thinking, sum(cost) AS cost
             FROM usage_events GROUP BY influencer_id
           ) AS e ON e.influencer_id = d.subject
           WHERE d.prompt > coalesce(e.prompt, 0) OR d.cached > coalesce(e.cached, 0)
             OR d.output > coalesce(e.output, 0) OR d.thinking > coalesce(e.thinking, 0)
             OR d.cost > coalesce(e.cost, 0)""",
    ),
    Invariant(
        "usage_days.reserved",
        "No more is held back for a persona than for what runs, and never less than nothing.",
        """SELECT d.subject AS id FROM usage_days AS d
           WHERE d.reserved_tokens < 0 OR d.reserved_cost < 0 OR (d.kind = 'influencer' AND (
             d.reserved_tokens > (SELECT coalesce(sum(o.tokens), 0) FROM open_usage AS o
               WHERE o.holds_influencer AND o.influencer_id = d.subject AND o.day = d.day)
             OR d.reserved_cost > (SELECT coalesce(sum(o.cost), 0) FROM open_usage AS o
               WHERE o.holds_influencer AND o.influencer_id = d.subject AND o.day = d.day)))""",
    ),
)

_OTHERS = (
    Invariant(
        "influencers.status",
        "A persona stands in the lists where its status puts it.",
        """SELECT id FROM influencers
           WHERE status_rank <> CASE status WHEN 'active' THEN 0 WHEN 'coming_soon' THEN 1 ELSE 2 END
             OR status NOT IN ('active', 'coming_soon', 'discontinued')""",
    ),
    Invariant(
        "influencers.version",
        "What a persona is told is the newest of its kept versions.",
        """SELECT i.id FROM influencers AS i JOIN (
             SELECT influencer_id, max(n) AS n FROM influencer_versions GROUP BY influencer_id
           ) AS newest ON newest.influencer_id = i.id
             JOIN influencer_versions AS v ON v.influencer_id = i.id AND v.n = newest.n
           WHERE v.n <> i.version OR v.system_instructions <> i.system_instructions""",
    ),
    Invariant(
        "installation.one",
        "A database has one name.",
        "SELECT 'installation' AS id WHERE (SELECT count(*) FROM installation) <> 1",
    ),
)

INVARIANTS = (*_MESSAGES, *_TURNS, *_CONVERSATIONS, *_PARTICIPANTS, *_COUNTS, *_OTHERS)
