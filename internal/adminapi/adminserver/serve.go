package adminserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
)

// Listen listens on the Unix socket at path, for its owner alone. A socket that
// a dead mafd left is replaced, one that answers is not.
func Listen(path string) (net.Listener, error) {
	if err := removeDead(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// The umask has done this already where mafd is the process; not in tests.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func removeDead(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and not a socket; set admin.socket to another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another program answers at %s", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// NewServer returns the HTTP server for Listen's listener. It lets in root and
// the user that this process runs as, and nobody else.
func NewServer(c Config) *http.Server {
	return &http.Server{
		Handler:           onlyOwner(Handler(c), c.Denied),
		ConnContext:       withCaller,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      5 * time.Minute, // removing a client goes over all keys
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		// A handler's panic shows here and nowhere else.
		ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelError),
	}
}

// callerKey is the context key under which a connection's *caller stands.
type callerKey struct{}

type caller struct {
	uid uint32
	err error
}

func withCaller(ctx context.Context, conn net.Conn) context.Context {
	uid, err := peerUID(conn)
	return context.WithValue(ctx, callerKey{}, &caller{uid, err})
}

// Caller names who made a request, by its context, for the audit log.
func Caller(ctx context.Context) string {
	c, ok := ctx.Value(callerKey{}).(*caller)
	if !ok || c.err != nil {
		return "unknown"
	}
	return "uid:" + strconv.FormatUint(uint64(c.uid), 10)
}

// onlyOwner repeats what the socket's permissions say: those of a folder above
// may be looser than they should be, and a file mode is easily changed.
func onlyOwner(next http.Handler, denied func(context.Context)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(callerKey{}).(*caller)
		if !ok || c.err != nil || c.uid != 0 && c.uid != uint32(os.Geteuid()) {
			if denied != nil {
				denied(r.Context())
			}
			writeJSON(w, http.StatusForbidden, &adminapi.Error{Status: http.StatusForbidden,
				Code: adminapi.CodeForbidden, Text: "only root and the user that mafd runs as may administer it"})
			return
		}
		next.ServeHTTP(w, r)
	})
}
