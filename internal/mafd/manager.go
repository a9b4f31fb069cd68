package mafd

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/onem2m-maf/maf/internal/systemd"
)

// A manager is the service manager, who is told how mafd is doing.
type manager struct {
	log    *slog.Logger
	pings  <-chan time.Time // when it wants to hear that mafd lives; nil for never
	checks func() error
}

func newManager(d *Daemon, log *slog.Logger) *manager {
	m := &manager{log: log, checks: d.alive}
	if every := systemd.WatchdogInterval(); every > 0 {
		m.pings = time.Tick(every / 2)
	}
	return m
}

func (m *manager) tell(messages ...string) {
	if err := systemd.Notify(messages...); err != nil {
		m.log.Warn("the service manager does not listen", "error", err.Error())
	}
}

// ping says that mafd lives, if it does. If not, the manager will restart it.
func (m *manager) ping() {
	if err := m.checks(); err != nil {
		m.log.Error("mafd hangs", "error", err.Error())
		return
	}
	m.tell(systemd.Watchdog)
}

// until waits until mafd is told to stop, which is no failure, or can't go on.
func (d *Daemon) until(stop, hangup <-chan os.Signal, m *manager, reload func()) (failure error) {
	for {
		select {
		case s := <-stop:
			d.log.Info("stopping", "signal", s.String())
			return nil
		case failure = <-d.failed:
			d.log.Error("stopping", "error", failure.Error())
			return failure
		case <-hangup:
			m.tell(systemd.Reloading())
			reload()
			m.tell(systemd.Ready, systemd.Status(d.status()))
		case <-m.pings:
			m.ping()
		}
	}
}

// status says in one line what mafd does, for systemctl status.
func (d *Daemon) status() string {
	return fmt.Sprintf("serving %s", join(d.config.FQDNs))
}
