-- What the policies have learned: losing it costs some cold starts.
CREATE TABLE lessons (
    function BLOB    NOT NULL,
    -- 0: of the function, whatever its version.
    version  INTEGER NOT NULL,
    -- JSON.
    body     TEXT    NOT NULL,
    saved_at INTEGER NOT NULL,
    PRIMARY KEY (function, version)
) WITHOUT ROWID;
CREATE INDEX lessons_age ON lessons (saved_at);

-- A function's failed calls, however many succeeded and however many of others failed. A call that succeeds never comes into it.
CREATE INDEX records_failed ON records (function, status) WHERE status NOT IN ('SUCCESS', 'QUEUED', 'RUNNING');
-- What a sweep looks for, every minute.
CREATE INDEX functions_deleted ON functions (deleted_at) WHERE deleted_at IS NOT NULL;
