-- One schema for SQLite and PostgreSQL: what both understand alike. Times are microseconds since 1970 in
-- UTC, documents are JSON, flags are states in words.

-- The last number given to an occurrence. Its row is the lock that all writers take first: numbers become
-- visible in their order, so that a cursor never passes over one.
CREATE TABLE counters (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('occurrence', 0);

CREATE TABLE escalations (
    id TEXT NOT NULL PRIMARY KEY,
    session_id TEXT NOT NULL,
    channel BIGINT NOT NULL,
    policy TEXT NOT NULL,
    rule TEXT NOT NULL,
    onset BIGINT NOT NULL, -- samples at 16 kHz since the stream's first
    again BIGINT NOT NULL, -- how many conversations of that name had one at the same place before
    severity BIGINT NOT NULL, -- 0 advisory to 3 high
    state TEXT NOT NULL,
    raised_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    session_ended BIGINT NOT NULL, -- 0 or 1
    document TEXT NOT NULL
);
CREATE INDEX escalations_by_time ON escalations (raised_at, id);
CREATE INDEX escalations_by_session ON escalations (session_id, policy, rule, channel, onset);
CREATE INDEX escalations_by_update ON escalations (updated_at);

CREATE TABLE labels (
    escalation_id TEXT NOT NULL REFERENCES escalations (id),
    label TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (escalation_id, label)
);
CREATE INDEX labels_by_value ON labels (label, value);

-- Everything that happened, append-only: the audit trail. Only the end of the retention removes rows.
CREATE TABLE occurrences (
    sequence BIGINT NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    escalation_id TEXT NOT NULL REFERENCES escalations (id),
    kind TEXT NOT NULL,
    at BIGINT NOT NULL,
    document TEXT NOT NULL
);
CREATE INDEX occurrences_by_escalation ON occurrences (escalation_id, sequence);

-- What has to reach a sink. waiting: an earlier one of the same session and sink has not ended yet;
-- due: to be tried at next_at; leased: somebody is trying, until next_at; delivered; dead.
CREATE TABLE deliveries (
    sequence BIGINT NOT NULL REFERENCES occurrences (sequence),
    sink TEXT NOT NULL,
    session_id TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    lease_owner TEXT,
    problem TEXT,
    created_at BIGINT NOT NULL,
    ended_at BIGINT,
    PRIMARY KEY (sequence, sink)
);
CREATE INDEX deliveries_by_due ON deliveries (sink, state, next_at);
CREATE INDEX deliveries_by_session ON deliveries (sink, session_id, state, sequence);

CREATE TABLE attempts (
    sequence BIGINT NOT NULL,
    sink TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    at BIGINT NOT NULL,
    took BIGINT NOT NULL, -- microseconds
    outcome TEXT NOT NULL, -- delivered, retry, dead, gone
    detail TEXT NOT NULL
);
CREATE INDEX attempts_by_delivery ON attempts (sequence, sink);

-- Endpoints that answered 410: nothing is sent to them until their dead letters are replayed.
CREATE TABLE gone (
    sink TEXT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    problem TEXT NOT NULL
);
