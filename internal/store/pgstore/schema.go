package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// A migration makes a schema of version i+1 out of one of version i.
type migration struct {
	sql string
	// oldest is the oldest version that a program may have been made for and still
	// work on this schema.
	oldest int
}

// migrations are the steps to the newest schema. A step that was ever released
// never changes; new ones come at the end.
//
// # The contract
//
// Nodes are upgraded one after the other, so a program of version i works on while
// another one brings the schema to i+1. A step therefore leaves in place all that
// version i reads and writes: it may add tables, indexes, and columns with a
// default. What it makes unnecessary, the step after it removes, by raising oldest;
// so no version may be skipped while nodes run. A program refuses a schema whose
// oldest is above what it knows, also when it connects anew.
//
// A step must not hold a lock for longer than a handshake can wait: no rewrite of a
// table, no CREATE INDEX on kc (it would have to run CONCURRENTLY, outside).
//
// # The schema
//
// Times are seconds since 1970, lifetimes seconds; identifiers are texts as onem2m
// writes them, "" for none.
var migrations = []migration{
	// km_id orders by octets. relative is 16 octets, for which PostgreSQL has the
	// type uuid. seq has no sequence behind it: those have gaps, and number n+1 can
	// be seen before n. It counts in position, whose row is locked until the
	// transaction ends.
	{oldest: 1, sql: `
	CREATE TABLE maf.client (
		km_id     text    COLLATE "C" NOT NULL PRIMARY KEY,
		uid       bigint  NOT NULL,
		version   bigint  NOT NULL,
		lifetime  bigint  NOT NULL,
		created   bigint  NOT NULL,
		updated   bigint  NOT NULL,
		disabled  boolean NOT NULL,
		id_b      text    NOT NULL,
		ae_id     text    NOT NULL,
		cse_id    text    NOT NULL,
		sealed_km bytea   NOT NULL
	);
	CREATE TABLE maf.kc (
		relative  uuid   NOT NULL PRIMARY KEY,
		uid       bigint NOT NULL,
		expires   bigint NOT NULL,
		km_id     text   NOT NULL,
		id_b      text   NOT NULL,
		sealed_kc bytea  NOT NULL
	);
	CREATE INDEX kc_expires ON maf.kc (expires);
	CREATE TABLE maf.revocation (
		seq   bigint NOT NULL PRIMARY KEY,
		id_b  text   NOT NULL,
		km_id text   NOT NULL,
		kc_id text   NOT NULL
	);
	CREATE TABLE maf.position (
		single boolean NOT NULL PRIMARY KEY CHECK (single),
		last   bigint  NOT NULL
	);
	INSERT INTO maf.position VALUES (true, 0);
	CREATE TABLE maf.keyset (
		single boolean NOT NULL PRIMARY KEY CHECK (single),
		mark   bytea   NOT NULL
	);
	`},
}

// Keys of the advisory locks, which all have the first number in common: "MAF1".
const (
	lockSpace   = 0x4d414631
	lockSchema  = 1 // who changes the schema
	lockRemoval = 2 // who removes many keys
)

// prepareSchema brings the database to the newest schema, on a connection of its
// own: the pool's are only made once there is a schema.
func prepareSchema(ctx context.Context, config *pgx.ConnConfig, before func(context.Context, *pgx.ConnConfig) error, steps []migration) error {
	config = config.Copy()
	if err := before(ctx, config); err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("pgstore: %w", err)
	}
	defer conn.Close(ctx)
	// Most starts find nothing to do, and then need no right to do it.
	version, oldest, err := readVersion(ctx, conn)
	if err != nil {
		return err
	}
	if version >= len(steps) {
		return checkVersion(version, oldest, len(steps))
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return migrate(ctx, tx, steps) })
}

// checkVersion refuses a schema that this program could spoil.
func checkVersion(version, oldest, known int) error {
	if oldest > known {
		return fmt.Errorf("%w: the schema has version %d and is for programs of version %d or later; this one is of %d", ErrNewer, version, oldest, known)
	}
	return nil
}

type queryer interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// readVersion returns zeros when there is no schema, or an empty one.
func readVersion(ctx context.Context, q queryer) (version, oldest int, err error) {
	var ours, used bool
	err = q.QueryRow(ctx, `SELECT to_regclass('maf.schema_version') IS NOT NULL,
		EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('maf'))`).Scan(&ours, &used)
	switch {
	case err != nil:
		return 0, 0, fmt.Errorf("pgstore: looking for the schema: %w", err)
	case !used:
		return 0, 0, nil
	case !ours:
		return 0, 0, ErrForeign
	}
	err = q.QueryRow(ctx, "SELECT version, oldest FROM maf.schema_version").Scan(&version, &oldest)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, 0, ErrForeign
	}
	return version, oldest, err
}

// migrate takes the missing steps in one transaction: after a crash in between,
// they start over. Of several nodes that start at the same time one takes them, and
// the others wait and find them taken.
func migrate(ctx context.Context, tx pgx.Tx, steps []migration) error {
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1, $2)", lockSpace, lockSchema); err != nil {
		return err
	}
	version, oldest, err := readVersion(ctx, tx)
	if err != nil {
		return err
	}
	run := func(sql string) error {
		// Several statements at once go by the simple protocol only.
		_, err := tx.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		return err
	}
	if version == 0 {
		if err := run(`CREATE SCHEMA IF NOT EXISTS maf;
			CREATE TABLE maf.schema_version (single boolean NOT NULL PRIMARY KEY CHECK (single), version integer NOT NULL, oldest integer NOT NULL);
			INSERT INTO maf.schema_version VALUES (true, 0, 0)`); err != nil {
			return fmt.Errorf("pgstore: making the schema: %w", err)
		}
	}
	for ; version < len(steps); version++ {
		if steps[version].oldest > max(version, 1) {
			return fmt.Errorf("pgstore: the step to version %d leaves no time to upgrade", version+1)
		}
		if err := run(steps[version].sql); err != nil {
			return fmt.Errorf("pgstore: migrating to schema version %d: %w", version+1, err)
		}
		oldest = max(oldest, steps[version].oldest)
	}
	_, err = tx.Exec(ctx, "UPDATE maf.schema_version SET version = $1, oldest = $2", version, oldest)
	return err
}
