/*
 * What the foreign peer programs share: one command line, one set of report
 * lines, one conversation. Each library's file supplies the lib_ functions and
 * nothing else, so that two peers differ in their TLS library only.
 *
 * A process speaks one connection (a server forks for each client), so the
 * state of a connection lives in plain globals.
 */
#ifndef MAF_PEER_H
#define MAF_PEER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A cipher suite by its IANA number and name. */
struct suite {
	uint16_t id;
	const char *name;
};

extern const struct suite all_suites[];
extern const size_t all_suites_len;

enum { MAX_SUITES = 16, MAX_IDENTITY = 256, MAX_PSK = 256, MAX_EXPORT = 256 };

/* The command line, parsed. */
struct options {
	int server;
	int dtls;
	char host[256];
	char port[16];
	const struct suite *suites[MAX_SUITES]; /* in order of preference */
	size_t suites_len;
	uint8_t identity[MAX_IDENTITY];
	size_t identity_len;
	uint8_t psk[MAX_PSK];
	size_t psk_len;
	const char *hint;  /* server: identity hint, or NULL */
	const char *sni;   /* client: server name, or NULL */
	const char *group; /* "X25519", "P-256", or NULL for the library's own list */
	const char *label; /* exporter label */
	size_t export_len;
	int ems; /* offer or accept the extended master secret */
	int etm; /* offer or accept encrypt-then-MAC */
	int fragment; /* ask for records of at most as many octets; 0: do not ask */
	int mtu; /* octets of UDP payload a datagram may have; 0: the library's default */
	int count; /* server: connections to serve before it ends; 0: no end */
	int pings; /* client: messages to exchange */
	size_t bulk; /* client: octets to send and read back after the pings */
};

extern struct options opt;

/* What a finished handshake agreed on; -1 where the library cannot tell. */
struct session {
	uint16_t suite;
	int ems;
	int etm;
	uint8_t identity[MAX_IDENTITY];
	size_t identity_len;
	char sni[256];
	uint8_t exported[MAX_EXPORT];
	uint8_t client_random[32];
	uint8_t server_random[32];
	int have_randoms;
};

extern struct session session;

/* The last alerts seen, by their code; -1: none. Shown when a connection fails. */
extern int alert_sent, alert_received;

/* emit writes one line to standard output in one write, as children share it. */
void emit(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* die reports a failed connection and ends the process. */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

const struct suite *suite_by_id(uint16_t id);

/* What each library supplies. */

/* Whether this build of the library can negotiate the suite over opt.dtls's protocol. */
int lib_supports(const struct suite *s);

/* Prepares what all connections share, from opt. */
void lib_setup(void);

/* Runs a handshake on a connected socket and fills in session; dies when it fails. */
void lib_handshake(int fd);

/*
 * Reads application data: the number of octets, 0 at the peer's close_notify,
 * -1 when the transport ended without one. Dies at anything else.
 */
ssize_t lib_read(void *buf, size_t len);

/* Writes all of buf (one record, over DTLS); dies when it cannot. */
void lib_write(const void *buf, size_t len);

/* Sends close_notify. */
void lib_close(void);

#ifdef __cplusplus
}
#endif

#endif
