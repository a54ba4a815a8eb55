-- Whether a caller waits for the job: then the function's failure is its end.
ALTER TABLE jobs ADD COLUMN mode TEXT NOT NULL DEFAULT 'async';
