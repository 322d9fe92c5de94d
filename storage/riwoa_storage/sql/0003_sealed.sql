-- Every row carries a checksum of its own columns (seal.py), so that a flipped bit is found where the row is read. What
-- many rows share is stored once. Of the search's states only the last of each run is kept: a resume needs no other, and
-- a digest needs a hash. Rows that may change are now also: states, verified, and a damaged evaluation, which is replaced.
-- sha256, key_hash, genes, choices, leader_architecture and leader_rest are Python's, which also fills in the checksums
-- at the end (migrate.py).

CREATE TABLE texts ( -- an oracle's version, a fitness version, the gene names of an architecture
  text_id INTEGER PRIMARY KEY,
  text TEXT NOT NULL UNIQUE,
  checksum INTEGER NOT NULL
) STRICT;

CREATE TABLE architectures ( -- two spaces may give one key to two architectures
  architecture_id INTEGER PRIMARY KEY,
  key_hash INTEGER NOT NULL, -- indexed in place of the key, which is as long as its architecture
  architecture_key TEXT NOT NULL,
  genes_id INTEGER NOT NULL REFERENCES texts (text_id), -- a JSON list of names, sorted
  choices TEXT NOT NULL, -- a JSON list, in the order of the names
  checksum INTEGER NOT NULL
) STRICT;

CREATE INDEX architectures_by_key ON architectures (key_hash);

CREATE TABLE states ( -- proved by generations.state_sha256
  run_id INTEGER PRIMARY KEY REFERENCES runs (run_id),
  generation INTEGER NOT NULL,
  state BLOB NOT NULL
) STRICT;

CREATE TABLE verified ( -- so far a run's chain was recomputed from its rows and held
  run_id INTEGER PRIMARY KEY REFERENCES runs (run_id),
  generations INTEGER NOT NULL CHECK (generations >= 0),
  digest TEXT NOT NULL CHECK (length(digest) = 64),
  checksum INTEGER NOT NULL
) STRICT;

INSERT INTO texts (text, checksum)
  SELECT oracle_version, 0 FROM evaluations
  UNION SELECT genes(architecture), 0 FROM evaluations
  UNION SELECT fitness_version, 0 FROM individuals
  UNION SELECT genes(architecture), 0 FROM individuals
  UNION SELECT genes(leader_architecture(leader)), 0 FROM generations WHERE leader_architecture(leader) IS NOT NULL;

INSERT INTO architectures (key_hash, architecture_key, genes_id, choices, checksum)
  SELECT key_hash(architecture_key), architecture_key, text_id, choices(architecture), 0 FROM (
    SELECT architecture_key, architecture FROM evaluations
    UNION SELECT architecture_key, architecture FROM individuals
    UNION SELECT json_extract(leader, '$.architecture_key'), leader_architecture(leader) FROM generations
      WHERE leader_architecture(leader) IS NOT NULL
  ) JOIN texts ON text = genes(architecture);

CREATE TABLE sealed_generations (
  generation_id INTEGER PRIMARY KEY,
  run_id INTEGER NOT NULL REFERENCES runs (run_id),
  generation INTEGER NOT NULL CHECK (generation >= 0),
  phase TEXT NOT NULL CHECK (phase IN ('search', 'polish')),
  config_revision INTEGER NOT NULL,
  counters TEXT NOT NULL,
  leader TEXT, -- without its architecture, where that is stored
  leader_architecture_id INTEGER REFERENCES architectures (architecture_id),
  inputs TEXT NOT NULL,
  joined_requests TEXT NOT NULL,
  duration_s REAL NOT NULL,
  digest TEXT NOT NULL CHECK (length(digest) = 64),
  committed_unix_s REAL NOT NULL,
  state_sha256 TEXT NOT NULL CHECK (length(state_sha256) = 64),
  checksum INTEGER NOT NULL,
  UNIQUE (run_id, generation),
  FOREIGN KEY (run_id, config_revision) REFERENCES config_revisions (run_id, revision)
) STRICT;

INSERT INTO sealed_generations
  SELECT generation_id, run_id, generation, phase, config_revision, counters, leader_rest(leader), architecture_id,
    inputs, joined_requests, duration_s, digest, committed_unix_s, sha256(state), 0
  FROM generations
  LEFT JOIN texts ON text = genes(leader_architecture(leader))
  LEFT JOIN architectures AS a ON a.key_hash = key_hash(json_extract(leader, '$.architecture_key'))
    AND a.architecture_key = json_extract(leader, '$.architecture_key') AND a.genes_id = text_id AND a.choices = choices(leader_architecture(leader))
  ORDER BY generation_id;

INSERT INTO states
  SELECT run_id, generation, state FROM generations AS g
  WHERE generation = (SELECT max(generation) FROM generations WHERE run_id = g.run_id);

CREATE TABLE sealed_individuals (
  individual_id INTEGER PRIMARY KEY, -- WITHOUT ROWID would push each row of over 1 KB to an overflow page of its own
  run_id INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  slot INTEGER NOT NULL CHECK (slot >= 0),
  operator TEXT NOT NULL,
  parent_generation INTEGER CHECK (parent_generation <= generation),
  parent_slot INTEGER CHECK ((parent_slot IS NULL) = (parent_generation IS NULL)),
  genotype BLOB NOT NULL CHECK (length(genotype) % 8 = 0),
  architecture_id INTEGER NOT NULL REFERENCES architectures (architecture_id),
  status TEXT NOT NULL CHECK (status IN ('ok', 'failed', 'dropped')),
  metrics TEXT NOT NULL,
  fitness REAL,
  fitness_version_id INTEGER NOT NULL REFERENCES texts (text_id),
  cache_hit INTEGER NOT NULL CHECK (cache_hit IN (0, 1)),
  request_id TEXT REFERENCES requests (request_id),
  error TEXT,
  checksum INTEGER NOT NULL,
  UNIQUE (run_id, generation, slot),
  FOREIGN KEY (run_id, generation) REFERENCES generations (run_id, generation),
  FOREIGN KEY (run_id, parent_generation, parent_slot) REFERENCES individuals (run_id, generation, slot)
    DEFERRABLE INITIALLY DEFERRED -- a parent may stand in a later slot of its child's generation
) STRICT;

INSERT INTO sealed_individuals
  SELECT individual_id, run_id, generation, slot, operator, parent_generation, parent_slot, genotype, architecture_id,
    status, metrics, fitness, version.text_id, cache_hit, request_id, error, 0
  FROM individuals AS i
  JOIN texts AS version ON version.text = fitness_version
  JOIN texts AS names ON names.text = genes(architecture)
  JOIN architectures AS a ON a.key_hash = key_hash(i.architecture_key)
    AND a.architecture_key = i.architecture_key AND a.genes_id = names.text_id AND a.choices = choices(architecture)
  ORDER BY individual_id;

CREATE TABLE sealed_evaluations (
  oracle_id INTEGER NOT NULL REFERENCES texts (text_id), -- the oracle's version
  architecture_id INTEGER NOT NULL REFERENCES architectures (architecture_id),
  status TEXT NOT NULL CHECK (status IN ('ok', 'failed')),
  metrics TEXT NOT NULL,
  error TEXT,
  attempts INTEGER NOT NULL CHECK (attempts >= 1),
  worker TEXT NOT NULL,
  duration_s REAL NOT NULL,
  created_unix_s REAL NOT NULL,
  checksum INTEGER NOT NULL,
  PRIMARY KEY (oracle_id, architecture_id)
) STRICT, WITHOUT ROWID;

INSERT INTO sealed_evaluations
  SELECT version.text_id, architecture_id, status, metrics, error, attempts, worker, duration_s, created_unix_s, 0
  FROM evaluations AS e
  JOIN texts AS version ON version.text = oracle_version
  JOIN texts AS names ON names.text = genes(architecture)
  JOIN architectures AS a ON a.key_hash = key_hash(e.architecture_key)
    AND a.architecture_key = e.architecture_key AND a.genes_id = names.text_id AND a.choices = choices(architecture)
  ORDER BY version.text_id, architecture_id;

DROP TABLE evaluations;
DROP TABLE individuals;
DROP TABLE generations;
ALTER TABLE sealed_evaluations RENAME TO evaluations;
ALTER TABLE sealed_individuals RENAME TO individuals;
ALTER TABLE sealed_generations RENAME TO generations;

CREATE INDEX individuals_by_architecture ON individuals (run_id, architecture_id);

ALTER TABLE runs ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE config_revisions ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE requests ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE replies ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE adapters ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE buffer_entries ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
