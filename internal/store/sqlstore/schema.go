package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
)

// applicationID stands in the file's header and says that it is a MAF's store:
// "MAF1" (PRAGMA application_id).
const applicationID = 0x4d414631

// migrations make a schema of version i+1 out of one of version i. A step that
// was ever released never changes; new ones come at the end. The version stands
// in the file's header (PRAGMA user_version).
//
// Times are seconds since 1970, lifetimes seconds; identifiers are texts as
// onem2m writes them, "" for none.
var migrations = []string{
	// km_id orders by octets, which is SQLite's default.
	//
	// kc is keyed in order of arrival: a table or index ordered by relative, which
	// is random, would rewrite a page for nearly every row. Where a key is found
	// by relative, package comment "Finding keys" says.
	`
	CREATE TABLE client (
		km_id     TEXT    NOT NULL PRIMARY KEY,
		uid       INTEGER NOT NULL,
		version   INTEGER NOT NULL,
		id_b      TEXT    NOT NULL,
		ae_id     TEXT    NOT NULL,
		cse_id    TEXT    NOT NULL,
		lifetime  INTEGER NOT NULL,
		disabled  INTEGER NOT NULL,
		created   INTEGER NOT NULL,
		updated   INTEGER NOT NULL,
		sealed_km BLOB    NOT NULL
	) STRICT, WITHOUT ROWID;

	CREATE TABLE kc (
		seq       INTEGER NOT NULL PRIMARY KEY,
		relative  BLOB    NOT NULL,
		km_id     TEXT    NOT NULL,
		uid       INTEGER NOT NULL,
		id_b      TEXT    NOT NULL,
		expires   INTEGER NOT NULL,
		sealed_kc BLOB    NOT NULL
	) STRICT;
	`,

	// The newest row always stays, so seq goes on from it. kc_id is "" for all
	// keys of km_id.
	`
	CREATE TABLE revocation (
		seq   INTEGER NOT NULL PRIMARY KEY,
		id_b  TEXT    NOT NULL,
		km_id TEXT    NOT NULL,
		kc_id TEXT    NOT NULL
	) STRICT;
	`,
}

// migrate brings the database to the newest schema, or refuses it: a database
// of something else, or of a newer program whose rows this one could spoil.
func migrate(ctx context.Context, conn *sql.Conn) error {
	var application, version, tables int
	err := conn.QueryRowContext(ctx, `SELECT
		(SELECT application_id FROM pragma_application_id),
		(SELECT user_version FROM pragma_user_version),
		(SELECT count(*) FROM sqlite_schema)`).Scan(&application, &version, &tables)
	if err != nil {
		return err
	}
	fresh := application == 0 && version == 0 && tables == 0
	if application != applicationID && !fresh {
		return ErrForeign
	}
	if version > len(migrations) {
		return fmt.Errorf("%w: the schema has version %d, this program knows %d", ErrNewer, version, len(migrations))
	}
	for ; version < len(migrations); version++ {
		// One transaction, header included: after a crash in between, this
		// migration starts over. (A PRAGMA takes no parameters.)
		_, err := conn.ExecContext(ctx, fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT",
			migrations[version], applicationID, version+1))
		if err != nil {
			conn.ExecContext(ctx, "ROLLBACK") // fails when there is nothing to roll back
			return fmt.Errorf("migrating to schema version %d: %w", version+1, err)
		}
	}
	return nil
}
