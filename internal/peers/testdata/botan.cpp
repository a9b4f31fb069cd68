// A peer on Botan 2; see peer.h. Botan always offers and accepts the extended
// master secret, so --ems off is refused rather than ignored.
#include "peer.h"

#include <botan/auto_rng.h>
#include <botan/credentials_manager.h>
#include <botan/tls_alert.h>
#include <botan/tls_callbacks.h>
#include <botan/tls_ciphersuite.h>
#include <botan/tls_client.h>
#include <botan/tls_exceptn.h>
#include <botan/tls_messages.h>
#include <botan/tls_policy.h>
#include <botan/tls_server.h>
#include <botan/tls_session_manager.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace TLS = Botan::TLS;

namespace {

class Policy : public TLS::Policy {
public:
	std::vector<uint16_t> ciphersuite_list(TLS::Protocol_Version, bool) const override {
		std::vector<uint16_t> ids;
		for (size_t i = 0; i < opt.suites_len; i++)
			ids.push_back(opt.suites[i]->id);
		return ids;
	}
	std::vector<std::string> allowed_key_exchange_methods() const override { return {"ECDHE_PSK", "PSK"}; }
	std::vector<std::string> allowed_signature_methods() const override { return {"IMPLICIT"}; }
	std::vector<TLS::Group_Params> key_exchange_groups() const override {
		if (opt.group == nullptr)
			return {TLS::Group_Params::X25519, TLS::Group_Params::SECP256R1};
		if (std::string(opt.group) == "X25519")
			return {TLS::Group_Params::X25519};
		return {TLS::Group_Params::SECP256R1};
	}
	bool negotiate_encrypt_then_mac() const override { return opt.etm; }
	bool allow_dtls12() const override { return true; }
	size_t dtls_default_mtu() const override { return opt.mtu > 0 ? opt.mtu : TLS::Policy::dtls_default_mtu(); }
};

Botan::AutoSeeded_RNG &rng() {
	static Botan::AutoSeeded_RNG generator;
	return generator;
}

class Credentials : public Botan::Credentials_Manager {
public:
	std::string psk_identity_hint(const std::string &, const std::string &) override { return opt.hint ? opt.hint : ""; }
	std::string psk_identity(const std::string &, const std::string &, const std::string &) override { return own(); }
	Botan::SymmetricKey psk(const std::string &type, const std::string &context, const std::string &identity) override {
		// Botan asks here for its own secrets too.
		if (type == "tls-server" && context == "session-ticket")
			return Botan::SymmetricKey();
		if (type == "tls-server" && context == "dtls-cookie-secret")
			return m_cookie_secret;
		if (identity != own())
			throw TLS::TLS_Exception(TLS::Alert::UNKNOWN_PSK_IDENTITY, "unknown identity");
		std::memcpy(session.identity, identity.data(), identity.size());
		session.identity_len = identity.size();
		return Botan::SymmetricKey(opt.psk, opt.psk_len);
	}

private:
	static std::string own() { return std::string(reinterpret_cast<char *>(opt.identity), opt.identity_len); }
	Botan::SymmetricKey m_cookie_secret{rng(), 32};
};

class Callbacks : public TLS::Callbacks {
public:
	explicit Callbacks(int fd) : m_fd(fd) {}

	void tls_emit_data(const uint8_t data[], size_t size) override {
		for (size_t done = 0; done < size;) {
			ssize_t n = send(m_fd, data + done, size - done, 0);
			if (n < 0)
				return; // the end of the connection is noticed by the reader
			done += n;
		}
	}
	void tls_record_received(uint64_t, const uint8_t data[], size_t size) override {
		m_received.insert(m_received.end(), data, data + size);
	}
	void tls_alert(TLS::Alert alert) override {
		if (alert.type() == TLS::Alert::CLOSE_NOTIFY)
			m_close_notify = true;
		else
			alert_received = alert.type();
	}
	bool tls_session_established(const TLS::Session &s) override {
		session.suite = s.ciphersuite_code();
		session.ems = s.supports_extended_master_secret();
		session.etm = s.supports_encrypt_then_mac();
		return false; // not to be cached
	}
	void tls_inspect_handshake_msg(const TLS::Handshake_Message &message) override {
		if (auto hello = dynamic_cast<const TLS::Client_Hello *>(&message)) {
			std::memcpy(session.client_random, hello->random().data(), 32);
			snprintf(session.sni, sizeof session.sni, "%s", hello->sni_hostname().c_str());
		} else if (auto reply = dynamic_cast<const TLS::Server_Hello *>(&message)) {
			std::memcpy(session.server_random, reply->random().data(), 32);
			session.have_randoms = 1;
		}
	}
	std::string tls_peer_network_identity() override { return "client"; } // the socket is connected to one

	std::deque<uint8_t> m_received;
	bool m_close_notify = false;
	int m_fd;
};

// Never freed: a process speaks one connection, and at its end Botan's own
// statics would be gone before these.
Policy *policy;
Credentials *credentials;
Callbacks *callbacks;
TLS::Session_Manager *sessions;
TLS::Channel *channel;

// pump feeds what the socket has to Botan; false at the transport's end.
bool pump() {
	uint8_t buf[1 << 16];
	pollfd p{callbacks->m_fd, POLLIN, 0};
	if (poll(&p, 1, 100) == 0) {
		channel->timeout_check(); // DTLS retransmission
		return true;
	}
	ssize_t n = recv(callbacks->m_fd, buf, sizeof buf, 0);
	if (n < 0 && errno == EINTR)
		return true;
	if (n <= 0)
		return false;
	try {
		channel->received_data(buf, n);
	} catch (const TLS::TLS_Exception &e) {
		alert_sent = e.type();
		die("handshake: %s", e.what());
	} catch (const std::exception &e) {
		die("handshake: %s", e.what());
	}
	return true;
}

} // namespace

int lib_supports(const struct suite *s) {
	auto found = TLS::Ciphersuite::by_id(s->id);
	return found.valid() && found.usable_in_version(opt.dtls ? TLS::Protocol_Version::DTLS_V12 : TLS::Protocol_Version::TLS_V12);
}

void lib_setup() {
	if (!opt.ems) {
		emit("UNSUPPORTED ems=off");
		_exit(3);
	}
	policy = new Policy;
	sessions = new TLS::Session_Manager_Noop;
}

void lib_handshake(int fd) {
	auto version = opt.dtls ? TLS::Protocol_Version::DTLS_V12 : TLS::Protocol_Version::TLS_V12;
	credentials = new Credentials;
	callbacks = new Callbacks(fd);
	if (opt.server)
		channel = new TLS::Server(*callbacks, *sessions, *credentials, *policy, rng(), opt.dtls != 0);
	else
		channel = new TLS::Client(*callbacks, *sessions, *credentials, *policy, rng(),
					  TLS::Server_Information(opt.sni ? opt.sni : "", 0), version);
	while (!channel->is_active()) {
		if (channel->is_closed() || !pump())
			die("handshake: the connection ended");
	}
	auto key = channel->key_material_export(opt.label, "", opt.export_len);
	std::memcpy(session.exported, key.bits_of().data(), opt.export_len);
}

ssize_t lib_read(void *buf, size_t len) {
	auto &received = callbacks->m_received;
	while (received.empty()) {
		if (callbacks->m_close_notify)
			return 0;
		// Once it has closed, Botan reads no more: it cannot tell whether
		// the other side answered with its own close_notify.
		if (channel->is_closed() || !pump())
			return callbacks->m_close_notify ? 0 : -1;
	}
	size_t n = std::min(len, received.size());
	std::copy_n(received.begin(), n, static_cast<uint8_t *>(buf));
	received.erase(received.begin(), received.begin() + n);
	return n;
}

void lib_write(const void *buf, size_t len) {
	try {
		channel->send(static_cast<const uint8_t *>(buf), len);
	} catch (const std::exception &e) {
		die("write: %s", e.what());
	}
}

void lib_close() {
	channel->close();
}
