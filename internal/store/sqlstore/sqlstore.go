// Package sqlstore is the embedded store: SQLite in one file.
package sqlstore

import (
	"context"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
)

// Options may be left zero.
type Options struct {
	// ClientCache is how many clients are kept in memory; 0 means 65536.
	ClientCache int
	// CommitInterval is the shortest time between two commits under load.
	CommitInterval time.Duration
}

// DB is an open store.
type DB struct{}

// Open opens the store at path, and creates it when it isn't there.
func Open(ctx context.Context, path string, o Options) (*DB, error) { panic("not yet") }

// Clients and Keys are the store's two roles.
func (db *DB) Clients() store.ClientStore { panic("not yet") }
func (db *DB) Keys() store.KeyStore       { panic("not yet") }

// Close waits for what was begun and closes the files.
func (db *DB) Close() error { panic("not yet") }
