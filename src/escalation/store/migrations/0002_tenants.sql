-- Tenants, and sessions that are alive.

ALTER TABLE escalations ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default';
CREATE INDEX escalations_by_tenant ON escalations (tenant, raised_at, id);

-- Sessions with escalations in force. Whoever serves one says so again and again; when nobody has until
-- alive_until, the session has ended without a word: its server or its client is gone.
CREATE TABLE sessions (
    tenant TEXT NOT NULL,
    session_id TEXT NOT NULL,
    alive_until BIGINT NOT NULL,
    PRIMARY KEY (tenant, session_id)
);
CREATE INDEX sessions_by_end ON sessions (alive_until);
