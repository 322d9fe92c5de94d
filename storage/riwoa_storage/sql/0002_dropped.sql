-- An individual may be given up on a lower rung: neither evaluated in full nor failed. SQLite changes no CHECK in place.

CREATE TABLE raced_individuals (
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
  status TEXT NOT NULL CHECK (status IN ('ok', 'failed', 'dropped')),
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

INSERT INTO raced_individuals SELECT * FROM individuals;
DROP TABLE individuals;
ALTER TABLE raced_individuals RENAME TO individuals;
