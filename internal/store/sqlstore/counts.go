package sqlstore

import "context"

// Counts returns how many clients there are, and how many Kcs that have not been
// purged yet. It reads through the clients, which takes some tenths of a second
// for a million.
func (db *DB) Counts(ctx context.Context) (clients, keys int, err error) {
	err = db.read.QueryRowContext(ctx, "SELECT count(*) FROM client").Scan(&clients)
	return clients, db.index.len(), err
}
