-- The journal, version 1. JSON columns hold canonical JSON (sorted keys, compact); *_unix_s and duration_s are wall
-- times and never enter a digest. Rows are only ever added, except: runs (status, generations, digest),
-- buffer_entries.consumed_by and adapters.status.

CREATE TABLE runs (
  run_id INTEGER PRIMARY KEY,
  status TEXT NOT NULL CHECK (status IN ('running', 'finished', 'abandoned')),
  provenance TEXT NOT NULL,
  generations INTEGER NOT NULL DEFAULT 0 CHECK (generations >= 0), -- how many are committed: a cut tail shows
  digest TEXT NOT NULL CHECK (length(digest) = 64), -- head of the chain
  created_unix_s REAL NOT NULL
) STRICT;

CREATE UNIQUE INDEX one_running_run ON runs (status) WHERE status = 'running';

CREATE TABLE config_revisions (
  run_id INTEGER NOT NULL REFERENCES runs (run_id),
  revision INTEGER NOT NULL CHECK (revision >= 0),
  generation INTEGER NOT NULL CHECK (generation >= 0), -- applied from this one on
  config TEXT NOT NULL,
  changed TEXT NOT NULL,
  created_unix_s REAL NOT NULL,
  PRIMARY KEY (run_id, revision)
) STRICT;

CREATE TABLE generations (
  generation_id INTEGER PRIMARY KEY, -- a rowid table: the state is a large blob
  run_id INTEGER NOT NULL REFERENCES runs (run_id),
  generation INTEGER NOT NULL CHECK (generation >= 0),
  phase TEXT NOT NULL CHECK (phase IN ('search', 'polish')),
  config_revision INTEGER NOT NULL,
  counters TEXT NOT NULL,
  leader TEXT,
  inputs TEXT NOT NULL,
  joined_requests TEXT NOT NULL,
  duration_s REAL NOT NULL,
  digest TEXT NOT NULL CHECK (length(digest) = 64),
  committed_unix_s REAL NOT NULL,
  state BLOB NOT NULL, -- last: a summary reads the columns before it without touching its pages
  UNIQUE (run_id, generation),
  FOREIGN KEY (run_id, config_revision) REFERENCES config_revisions (run_id, revision)
) STRICT;

CREATE TABLE requests (
  request_id TEXT PRIMARY KEY,
  run_id INTEGER NOT NULL REFERENCES runs (run_id),
  generation INTEGER NOT NULL CHECK (generation >= 0),
  slot INTEGER NOT NULL CHECK (slot >= 0),
  join_generation INTEGER NOT NULL CHECK (join_generation >= generation),
  model TEXT NOT NULL,
  adapter_sha256 TEXT,
  seed INTEGER NOT NULL,
  prompt TEXT NOT NULL,
  parameters TEXT NOT NULL,
  created_unix_s REAL NOT NULL,
  UNIQUE (run_id, generation, slot),
  CHECK (request_id = run_id || '/' || generation || '/' || slot)
) STRICT;

CREATE TABLE replies (
  request_id TEXT PRIMARY KEY REFERENCES requests (request_id),
  status TEXT NOT NULL CHECK (status IN ('ok', 'timeout', 'failed')),
  text TEXT NOT NULL,
  reason TEXT,
  tokens INTEGER NOT NULL CHECK (tokens >= 0),
  duration_s REAL NOT NULL,
  created_unix_s REAL NOT NULL
) STRICT;

CREATE TABLE individuals (
  individual_id INTEGER PRIMARY KEY, -- WITHOUT ROWID would push each row of over 1 KB to an overflow page of its own
  run_id INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  slot INTEGER NOT NULL CHECK (slot >= 0),
  operator TEXT NOT NULL,
  parent_generation INTEGER CHECK (parent_generation <= generation),
  parent_slot INTEGER CHECK ((parent_slot IS NULL) = (parent_generation IS NULL)),
  genotype BLOB NOT NULL CHECK (length(genotype) % 8 = 0),
  architecture TEXT NOT NULL,
  architecture_key TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('ok', 'failed')),
  metrics TEXT NOT NULL,
  fitness REAL,
  fitness_version TEXT NOT NULL,
  cache_hit INTEGER NOT NULL CHECK (cache_hit IN (0, 1)),
  request_id TEXT REFERENCES requests (request_id),
  error TEXT,
  UNIQUE (run_id, generation, slot),
  FOREIGN KEY (run_id, generation) REFERENCES generations (run_id, generation),
  FOREIGN KEY (run_id, parent_generation, parent_slot) REFERENCES individuals (run_id, generation, slot)
    DEFERRABLE INITIALLY DEFERRED -- a parent may stand in a later slot of its child's generation
) STRICT;

CREATE TABLE evaluations (
  oracle_version TEXT NOT NULL,
  architecture_key TEXT NOT NULL,
  architecture TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('ok', 'failed')),
  metrics TEXT NOT NULL,
  error TEXT,
  attempts INTEGER NOT NULL CHECK (attempts >= 1),
  worker TEXT NOT NULL,
  duration_s REAL NOT NULL,
  created_unix_s REAL NOT NULL,
  PRIMARY KEY (oracle_version, architecture_key)
) STRICT;

CREATE TABLE adapters (
  adapter_id INTEGER PRIMARY KEY,
  run_id INTEGER NOT NULL REFERENCES runs (run_id),
  generation INTEGER NOT NULL CHECK (generation >= 0),
  parent_id INTEGER REFERENCES adapters (adapter_id),
  sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
  weights BLOB, -- NULL once retention dropped the bytes
  status TEXT NOT NULL CHECK (status IN ('current', 'superseded', 'rejected')),
  training TEXT NOT NULL,
  created_unix_s REAL NOT NULL
) STRICT;

CREATE UNIQUE INDEX one_current_adapter ON adapters (run_id) WHERE status = 'current';

CREATE TABLE buffer_entries (
  entry_id INTEGER PRIMARY KEY,
  run_id INTEGER NOT NULL REFERENCES runs (run_id),
  request_id TEXT NOT NULL UNIQUE REFERENCES requests (request_id),
  generation INTEGER NOT NULL CHECK (generation >= 0),
  parent_fitness REAL NOT NULL,
  child_fitness REAL NOT NULL CHECK (child_fitness > parent_fitness), -- only successes enter
  trace TEXT NOT NULL,
  consumed_by INTEGER REFERENCES adapters (adapter_id),
  created_unix_s REAL NOT NULL
) STRICT;

CREATE TABLE events (
  event_id INTEGER PRIMARY KEY,
  run_id INTEGER REFERENCES runs (run_id),
  generation INTEGER,
  kind TEXT NOT NULL,
  payload TEXT NOT NULL,
  created_unix_s REAL NOT NULL
) STRICT;
