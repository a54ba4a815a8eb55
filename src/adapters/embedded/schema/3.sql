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
