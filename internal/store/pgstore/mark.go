package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// KeysetMark returns the box that MarkKeyset stored, or nil when there is none:
// nothing was ever sealed for this database.
func (db *DB) KeysetMark(ctx context.Context) (box []byte, err error) {
	err = db.with(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT mark FROM maf.keyset").Scan(&box)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pgstore: reading the keyset's mark: %w", err)
	}
	return box, nil
}

// MarkKeyset stores a box by which nodes find out whether they have the same
// keyset, in the place of the one that is given, nil for none. When that is no
// longer there it changes nothing. It returns the box that is there then: of several
// nodes that start at the same time, the first one's.
func (db *DB) MarkKeyset(ctx context.Context, old, box []byte) ([]byte, error) {
	statement, args := "INSERT INTO maf.keyset VALUES (true, $1) ON CONFLICT DO NOTHING", []any{box}
	if old != nil {
		statement, args = "UPDATE maf.keyset SET mark = $1 WHERE mark = $2", []any{box, old}
	}
	err := db.transact(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, statement, args...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("pgstore: marking the keyset: %w", err)
	}
	return db.KeysetMark(ctx)
}
