package leaks

import (
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/coapgw"
	"github.com/onem2m-maf/maf/internal/gateway/mqttgw"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

// addGateway adds the bindings that have a key or a password of their own.
func addGateway(t *testing.T, table map[string]specimen, key secret.Key) {
	t.Helper()
	cse := onem2m.CSEID{SP: "city.example", ID: "in-cse"}
	rules, err := policy.New(policy.Config{CSE: cse})
	if err != nil {
		t.Fatal(err)
	}
	add := func(name string, value any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		table["internal/gateway/"+name] = specimen{value: value}
	}
	backendConfig := coapgw.BackendConfig{Address: "127.0.0.1:5683", Key: key}
	backend, err := coapgw.NewBackend(backendConfig)
	add("coapgw.BackendConfig", backendConfig, nil)
	add("coapgw.Backend", backend, err)
	notifyConfig := coapgw.NotificationsConfig{Address: "127.0.0.1:5684", CSE: cse, Key: key}
	notifications, err := coapgw.NewNotifications(notifyConfig)
	add("coapgw.NotificationsConfig", notifyConfig, nil)
	add("coapgw.Notifications", notifications, err)
	coapConfig := coapgw.Config{Rules: rules, Backend: backend, Notifications: notifications}
	coapServer, err := coapgw.New(coapConfig)
	add("coapgw.Config", coapConfig, nil)
	add("coapgw.Limits", coapConfig.Limits, nil)
	add("coapgw.Server", coapServer, err)
	mqttConfig := mqttgw.Config{Rules: rules, CSE: cse, Broker: mqttgw.Broker{Address: "127.0.0.1:1883", Username: "gateway", Password: key}}
	mqttServer, err := mqttgw.New(mqttConfig)
	add("mqttgw.Config", mqttConfig, nil)
	add("mqttgw.Broker", mqttConfig.Broker, nil)
	add("mqttgw.Limits", mqttConfig.Limits, nil)
	add("mqttgw.Server", mqttServer, err)
}
