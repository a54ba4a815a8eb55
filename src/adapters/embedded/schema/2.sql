ALTER TABLE keys ADD COLUMN description TEXT NOT NULL DEFAULT '';
-- Of an access key: the one function that it may invoke.
ALTER TABLE keys ADD COLUMN function BLOB;
ALTER TABLE keys ADD COLUMN expires_at INTEGER;
ALTER TABLE keys ADD COLUMN last_used_at INTEGER;
