-- What `riwoactl mirror` keeps in PostgreSQL: the journals of any number of state directories, each run by its key.
-- To be read by dashboards; riwoa itself reads no more of it than how far it came. Times are with their time zone.

CREATE SCHEMA IF NOT EXISTS riwoa;

CREATE TABLE IF NOT EXISTS riwoa.mirror (version integer NOT NULL);

CREATE TABLE IF NOT EXISTS riwoa.runs (
    run        text PRIMARY KEY,           -- the same for the same run of the same journal, wherever it is read
    journal    text NOT NULL,              -- key of the journal's first run
    run_id     integer NOT NULL,           -- its number in the journal
    status     text NOT NULL,              -- running, finished, or superseded by a later one
    created_at timestamptz NOT NULL,
    digest     text,
    config     jsonb NOT NULL,             -- that it was begun with
    provenance jsonb NOT NULL,
    leader     jsonb,                      -- the best so far
    test       jsonb                       -- what pictures that chose nothing said of it
);

CREATE TABLE IF NOT EXISTS riwoa.generations (
    run          text NOT NULL REFERENCES riwoa.runs ON DELETE CASCADE,
    generation   integer NOT NULL,
    phase        text NOT NULL,
    committed_at timestamptz NOT NULL,
    duration_s   double precision NOT NULL,
    evaluations  integer,                  -- of the run so far
    leader       jsonb,
    counters     jsonb NOT NULL,
    digest       text NOT NULL,
    PRIMARY KEY (run, generation)
);

CREATE TABLE IF NOT EXISTS riwoa.individuals (
    run               text NOT NULL,
    generation        integer NOT NULL,
    slot              integer NOT NULL,
    name              text NOT NULL,       -- 16 hexadecimal digits, as every verb tells and takes them
    operator          text NOT NULL,
    parent_generation integer,
    parent_slot       integer,
    status            text NOT NULL,
    cache_hit         boolean NOT NULL,
    fitness           double precision,
    accuracy          double precision,    -- a share of 1, where one was measured
    latency_ms        double precision,
    metrics           jsonb NOT NULL,
    architecture      jsonb NOT NULL,
    request_id        text,
    error             text,
    PRIMARY KEY (run, generation, slot),
    FOREIGN KEY (run, generation) REFERENCES riwoa.generations ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS individuals_by_name ON riwoa.individuals (name);

CREATE TABLE IF NOT EXISTS riwoa.replies (
    run             text NOT NULL REFERENCES riwoa.runs ON DELETE CASCADE,
    request_id      text NOT NULL,
    generation      integer NOT NULL,      -- that asked
    join_generation integer NOT NULL,
    model           text NOT NULL,
    prompt          text NOT NULL,
    reply           text,
    tokens          integer,
    duration_s      double precision,
    verdict         text NOT NULL,
    reason          text,
    PRIMARY KEY (run, request_id)
);

CREATE TABLE IF NOT EXISTS riwoa.events (
    journal    text NOT NULL,
    event_id   bigint NOT NULL,
    run_id     integer,
    generation integer,
    kind       text NOT NULL,
    created_at timestamptz NOT NULL,
    payload    jsonb NOT NULL,
    PRIMARY KEY (journal, event_id)
);
