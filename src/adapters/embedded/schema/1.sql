-- Times are milliseconds since 1970, ids and digests are raw bytes (`hex(id)` to read them).

-- One row an invocation. `seq` holds the time of creation above 20 bits of counter, so that rows lie in order of time: listings
-- and retention are ranges of the table itself.
CREATE TABLE records (
    seq               INTEGER PRIMARY KEY,
    id                BLOB    NOT NULL UNIQUE,
    owner             TEXT    NOT NULL,
    function          BLOB    NOT NULL,
    mode              TEXT    NOT NULL,
    status            TEXT    NOT NULL,
    attempt           INTEGER NOT NULL,
    -- Written by the start of an attempt, over what `body` says.
    worker            BLOB,
    started_at        INTEGER,
    -- Absent until the record is final.
    result_expires_at INTEGER,
    -- 1 while `body` holds a result worth taking out when it expires.
    large             INTEGER NOT NULL,
    -- The record as JSON.
    body              BLOB    NOT NULL,
    created_at        INTEGER GENERATED ALWAYS AS (seq >> 20) VIRTUAL
);
CREATE INDEX records_function ON records (function);
CREATE INDEX records_owner ON records (owner);
CREATE INDEX records_status ON records (status) WHERE status <> 'SUCCESS';
CREATE INDEX records_large ON records (result_expires_at) WHERE large = 1;

CREATE TABLE idempotency (
    owner      TEXT    NOT NULL,
    function   BLOB    NOT NULL,
    key        TEXT    NOT NULL,
    request    BLOB    NOT NULL,
    invocation BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (owner, function, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_age ON idempotency (created_at);

CREATE TABLE jobs (
    seq          INTEGER PRIMARY KEY,
    id           BLOB    NOT NULL UNIQUE,
    owner        TEXT    NOT NULL,
    function     BLOB    NOT NULL,
    version      INTEGER NOT NULL,
    -- One of the two.
    payload      BLOB,
    digest       BLOB,
    model        TEXT,
    accepted_at  INTEGER NOT NULL,
    available_at INTEGER NOT NULL,
    attempts     INTEGER NOT NULL
);
CREATE INDEX jobs_digest ON jobs (digest) WHERE digest IS NOT NULL;

CREATE TABLE dead_letters (
    seq          INTEGER PRIMARY KEY,
    id           BLOB    NOT NULL UNIQUE,
    owner        TEXT    NOT NULL,
    function     BLOB    NOT NULL,
    version      INTEGER NOT NULL,
    payload      BLOB,
    digest       BLOB,
    model        TEXT,
    accepted_at  INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    reason       TEXT    NOT NULL,
    died_at      INTEGER NOT NULL
);
CREATE INDEX dead_letters_owner ON dead_letters (owner);
CREATE INDEX dead_letters_age ON dead_letters (died_at);
CREATE INDEX dead_letters_digest ON dead_letters (digest) WHERE digest IS NOT NULL;

-- A deleted function keeps its row, and its versions, for the jobs that still name them.
CREATE TABLE functions (
    id         BLOB    PRIMARY KEY,
    owner      TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    current    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
);
CREATE UNIQUE INDEX functions_owned ON functions (owner, name) WHERE deleted_at IS NULL;
CREATE INDEX functions_named ON functions (name, id) WHERE deleted_at IS NULL;

CREATE TABLE versions (
    function   BLOB    NOT NULL,
    number     INTEGER NOT NULL,
    -- JSON, of what the values in `env` are not part.
    body       TEXT    NOT NULL,
    -- JSON object; apart, since it may hold secrets.
    env        TEXT    NOT NULL,
    code       BLOB    NOT NULL,
    PRIMARY KEY (function, number)
) WITHOUT ROWID;
CREATE INDEX versions_code ON versions (code);

CREATE TABLE keys (
    seq           INTEGER PRIMARY KEY,
    id            BLOB    NOT NULL UNIQUE,
    name          TEXT    NOT NULL,
    owner         TEXT    NOT NULL,
    -- Names, separated by spaces.
    scopes        TEXT    NOT NULL,
    secret_sha256 BLOB    NOT NULL UNIQUE,
    created_at    INTEGER NOT NULL
);
