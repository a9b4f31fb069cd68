package pgstore

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A listener waits for notifications on a connection of its own. It is also who
// says that PostgreSQL can't be reached and that it can be again.
type listener struct {
	db     *DB
	config *pgxpool.Config
	log    *slog.Logger
	lost   bool // said so
}

// silence is how long a connection may be without a notification before it is
// tried: a connection that died in silence looks like one without news.
const silence = 15 * time.Second

// run listens until ctx ends.
func (l *listener) run(ctx context.Context) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := l.listen(ctx, func() { pause = firstPause })
		if ctx.Err() != nil {
			return
		}
		if !l.lost {
			l.lost = true
			l.log.Error("the connection to PostgreSQL is lost; what needs the store fails until it is back", "error", err.Error())
		}
		select {
		case <-time.After(pause):
		case <-l.db.gate.good: // somebody else got through
		case <-ctx.Done():
			return
		}
	}
}

// listen connects and passes notifications on, until the connection is lost or ctx
// ends. It calls connected when it is.
func (l *listener) listen(ctx context.Context, connected func()) error {
	config := l.config.ConnConfig.Copy()
	if err := l.config.BeforeConnect(ctx, config); err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	l.db.gate.note(err)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		conn.Close(ctx)
	}()
	if err := l.config.AfterConnect(ctx, conn); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	connected()
	if l.lost {
		l.lost = false
		l.log.Info("the connection to PostgreSQL is back")
	}
	for {
		select { // also at first: something may have been revoked before LISTEN
		case l.db.revoked <- struct{}{}:
		default: // there is a token already
		}
		if err := wait(ctx, conn); err != nil {
			return err
		}
	}
}

// wait returns nil at a notification.
func wait(ctx context.Context, conn *pgx.Conn) error {
	for {
		limited, cancel := context.WithTimeout(ctx, silence)
		_, err := conn.WaitForNotification(limited)
		silent := err != nil && limited.Err() != nil && ctx.Err() == nil && !conn.IsClosed()
		cancel()
		if !silent {
			return err
		}
		limited, cancel = context.WithTimeout(ctx, patience)
		err = conn.Ping(limited)
		cancel()
		if err != nil {
			return err
		}
	}
}
