/* The part of a foreign peer that knows no TLS library; see peer.h. */
#include "peer.h"

#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

const struct suite all_suites[] = {
	{0x00AE, "TLS_PSK_WITH_AES_128_CBC_SHA256"},
	{0xC0A8, "TLS_PSK_WITH_AES_128_CCM_8"},
	{0xC0A4, "TLS_PSK_WITH_AES_128_CCM"},
	{0x00A8, "TLS_PSK_WITH_AES_128_GCM_SHA256"},
	{0x00A9, "TLS_PSK_WITH_AES_256_GCM_SHA384"},
	{0xCCAB, "TLS_PSK_WITH_CHACHA20_POLY1305_SHA256"},
	{0xC037, "TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256"},
	{0xD001, "TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256"},
	{0xD005, "TLS_ECDHE_PSK_WITH_AES_128_CCM_SHA256"},
	{0xCCAC, "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256"},
};
const size_t all_suites_len = sizeof all_suites / sizeof all_suites[0];

struct options opt;
struct session session;
int alert_sent = -1, alert_received = -1;

/* Seconds after which a stuck process ends by itself, whoever forgot it. */
enum { WATCHDOG = 60 };

static void vemit(const char *prefix, const char *format, va_list ap) {
	char line[4096];
	int n = snprintf(line, sizeof line, "%s", prefix);
	n += vsnprintf(line + n, sizeof line - n - 1, format, ap);
	if (n > (int)sizeof line - 2)
		n = sizeof line - 2;
	line[n++] = '\n';
	if (write(STDOUT_FILENO, line, n) != n)
		_exit(2);
}

void emit(const char *format, ...) {
	va_list ap;
	va_start(ap, format);
	vemit("", format, ap);
	va_end(ap);
}

void die(const char *format, ...) {
	char prefix[64];
	va_list ap;
	snprintf(prefix, sizeof prefix, "FAILED sent=%d received=%d ", alert_sent, alert_received);
	va_start(ap, format);
	vemit(prefix, format, ap);
	va_end(ap);
	_exit(1);
}

static void usage(const char *why) {
	fprintf(stderr,
		"%s\n"
		"usage: peer client|server|list --proto tls|dtls --addr HOST:PORT --suite NAME[:NAME...] --psk HEX\n"
		"            [--identity TEXT | --identity-hex HEX] [--hint TEXT] [--sni NAME] [--group X25519|P-256]\n"
		"            [--ems on|off] [--etm on|off] [--mtu N] [--fragment N] [--label TEXT] [--export-len N]\n"
		"            [--count N] [--pings N] [--bulk N]\n",
		why);
	exit(2);
}

const struct suite *suite_by_id(uint16_t id) {
	for (size_t i = 0; i < all_suites_len; i++)
		if (all_suites[i].id == id)
			return &all_suites[i];
	return NULL;
}

static const struct suite *suite_by_name(const char *name) {
	for (size_t i = 0; i < all_suites_len; i++)
		if (strcmp(all_suites[i].name, name) == 0)
			return &all_suites[i];
	return NULL;
}

static size_t unhex(const char *hex, uint8_t *out, size_t max) {
	size_t n = strlen(hex);
	if (n % 2 != 0 || n / 2 > max)
		usage("hex of an odd or excessive length");
	for (size_t i = 0; i < n / 2; i++) {
		unsigned int v;
		if (sscanf(hex + 2 * i, "%2x", &v) != 1)
			usage("not hex");
		out[i] = (uint8_t)v;
	}
	return n / 2;
}

static char *hex(const uint8_t *in, size_t len, char *out) {
	for (size_t i = 0; i < len; i++)
		sprintf(out + 2 * i, "%02x", in[i]);
	out[2 * len] = 0;
	return out;
}

static int on_off(const char *value) {
	if (strcmp(value, "on") == 0)
		return 1;
	if (strcmp(value, "off") == 0)
		return 0;
	usage("neither on nor off");
	return 0;
}

static void parse_suites(char *list) {
	for (char *name = strtok(list, ":"); name != NULL; name = strtok(NULL, ":")) {
		const struct suite *s = suite_by_name(name);
		if (s == NULL || opt.suites_len == MAX_SUITES)
			usage("unknown suite");
		opt.suites[opt.suites_len++] = s;
	}
}

static void parse_addr(const char *addr) {
	const char *colon = strrchr(addr, ':');
	if (colon == NULL || (size_t)(colon - addr) >= sizeof opt.host || strlen(colon + 1) >= sizeof opt.port)
		usage("--addr is not HOST:PORT");
	memcpy(opt.host, addr, colon - addr);
	strcpy(opt.port, colon + 1);
}

static void parse_option(const char *name, char *value) {
	if (strcmp(name, "--proto") == 0)
		opt.dtls = strcmp(value, "dtls") == 0;
	else if (strcmp(name, "--addr") == 0)
		parse_addr(value);
	else if (strcmp(name, "--suite") == 0)
		parse_suites(value);
	else if (strcmp(name, "--psk") == 0)
		opt.psk_len = unhex(value, opt.psk, sizeof opt.psk);
	else if (strcmp(name, "--identity-hex") == 0)
		opt.identity_len = unhex(value, opt.identity, sizeof opt.identity);
	else if (strcmp(name, "--identity") == 0) {
		opt.identity_len = strlen(value);
		if (opt.identity_len > sizeof opt.identity)
			usage("identity too long");
		memcpy(opt.identity, value, opt.identity_len);
	} else if (strcmp(name, "--hint") == 0)
		opt.hint = value;
	else if (strcmp(name, "--sni") == 0)
		opt.sni = value;
	else if (strcmp(name, "--group") == 0)
		opt.group = value;
	else if (strcmp(name, "--label") == 0)
		opt.label = value;
	else if (strcmp(name, "--export-len") == 0)
		opt.export_len = (size_t)atoi(value);
	else if (strcmp(name, "--ems") == 0)
		opt.ems = on_off(value);
	else if (strcmp(name, "--etm") == 0)
		opt.etm = on_off(value);
	else if (strcmp(name, "--mtu") == 0)
		opt.mtu = atoi(value);
	else if (strcmp(name, "--fragment") == 0)
		opt.fragment = atoi(value);
	else if (strcmp(name, "--count") == 0)
		opt.count = atoi(value);
	else if (strcmp(name, "--pings") == 0)
		opt.pings = atoi(value);
	else if (strcmp(name, "--bulk") == 0)
		opt.bulk = (size_t)atoi(value);
	else
		usage(name);
}

static int open_socket(void) {
	struct addrinfo hints = {0}, *ai;
	int one = 1;
	hints.ai_family = AF_INET;
	hints.ai_socktype = opt.dtls ? SOCK_DGRAM : SOCK_STREAM;
	hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | (opt.server ? AI_PASSIVE : 0);
	if (getaddrinfo(opt.host, opt.port, &hints, &ai) != 0)
		usage("--addr must be numeric");
	int fd = socket(ai->ai_family, ai->ai_socktype, 0);
	if (fd < 0)
		die("socket: %s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (opt.server ? bind(fd, ai->ai_addr, ai->ai_addrlen) : connect(fd, ai->ai_addr, ai->ai_addrlen))
		die("%s: %s", opt.server ? "bind" : "connect", strerror(errno));
	if (opt.server && !opt.dtls && listen(fd, 64) != 0)
		die("listen: %s", strerror(errno));
	freeaddrinfo(ai);
	return fd;
}

/* local_port puts the port the system chose into opt.port, for the sockets to come. */
static void local_port(int fd) {
	struct sockaddr_storage ss;
	socklen_t len = sizeof ss;
	if (getsockname(fd, (struct sockaddr *)&ss, &len) != 0 ||
	    getnameinfo((struct sockaddr *)&ss, len, NULL, 0, opt.port, sizeof opt.port, NI_NUMERICSERV) != 0)
		die("getsockname");
}

static void report_session(void) {
	char identity[2 * MAX_IDENTITY + 1], exported[2 * MAX_EXPORT + 1], client[65] = "-", server[65] = "-";
	const struct suite *s = suite_by_id(session.suite);
	if (session.have_randoms) {
		hex(session.client_random, 32, client);
		hex(session.server_random, 32, server);
	}
	emit("SESSION suite=%s ems=%d etm=%d identity=%s sni=%s export=%s client_random=%s server_random=%s",
	     s ? s->name : "?", session.ems, session.etm, hex(session.identity, session.identity_len, identity),
	     session.sni[0] ? session.sni : "-", hex(session.exported, opt.export_len, exported), client, server);
}

static void read_full(uint8_t *buf, size_t len) {
	for (size_t have = 0; have < len;) {
		ssize_t n = lib_read(buf + have, len - have);
		if (n <= 0)
			die("the connection ended in the middle of the answer");
		have += (size_t)n;
	}
}

/* The client's half of the conversation: "ping N" is answered by "pong N", other data by itself. */
static void talk(void) {
	for (int i = 1; i <= opt.pings; i++) {
		char ping[32], pong[32];
		int n = snprintf(ping, sizeof ping, "ping %d", i);
		lib_write(ping, (size_t)n);
		read_full((uint8_t *)pong, (size_t)n);
		ping[1] = 'o';
		if (memcmp(ping, pong, (size_t)n) != 0)
			die("ping %d was answered by something else", i);
	}
	if (opt.bulk > 0) {
		uint8_t *sent = malloc(opt.bulk), *back = malloc(opt.bulk);
		for (size_t i = 0; i < opt.bulk; i++)
			sent[i] = (uint8_t)(i * 7 + i / 251);
		lib_write(sent, opt.bulk);
		read_full(back, opt.bulk);
		if (memcmp(sent, back, opt.bulk) != 0)
			die("the data came back changed");
		free(sent);
		free(back);
	}
	emit("DATA pings=%d bulk=%zu", opt.pings, opt.bulk);
}

static int run_client(void) {
	uint8_t rest[2048];
	int fd = open_socket();
	lib_handshake(fd);
	report_session();
	talk();
	lib_close();
	/* RFC 5246 7.2.1: the other side answers close_notify with its own. */
	emit("CLOSED %s", lib_read(rest, sizeof rest) == 0 ? "notify" : "eof");
	return 0;
}

static void serve(int fd) {
	static uint8_t buf[1 << 16];
	ssize_t n;
	lib_handshake(fd);
	report_session();
	while ((n = lib_read(buf, sizeof buf)) > 0) {
		if (n >= 4 && memcmp(buf, "ping", 4) == 0)
			buf[1] = 'o';
		lib_write(buf, (size_t)n);
	}
	lib_close();
	emit("CLOSED %s", n == 0 ? "notify" : "eof");
}

/*
 * next_client waits for a client and returns a socket connected to it. Over UDP the
 * listening socket itself becomes the client's, with its first datagram still
 * queued, and a fresh one takes the listener's place. (So this server keeps state
 * before a cookie has returned; it is a witness, not an example.)
 */
static int next_client(int *listener, int last) {
	struct sockaddr_storage from;
	socklen_t len = sizeof from;
	uint8_t byte;
	if (!opt.dtls) {
		int fd = accept(*listener, NULL, NULL);
		if (fd < 0)
			die("accept: %s", strerror(errno));
		return fd;
	}
	if (recvfrom(*listener, &byte, 1, MSG_PEEK, (struct sockaddr *)&from, &len) < 0)
		die("recvfrom: %s", strerror(errno));
	int fd = *listener;
	*listener = last ? -1 : open_socket();
	if (connect(fd, (struct sockaddr *)&from, len) != 0)
		die("connect: %s", strerror(errno));
	return fd;
}

static int run_server(void) {
	int listener = open_socket(), failed = 0, status;
	local_port(listener);
	emit("READY %s", opt.port);
	for (int i = 1; opt.count == 0 || i <= opt.count; i++) {
		int fd = next_client(&listener, i == opt.count);
		if (opt.count == 1) {
			serve(fd);
			return 0;
		}
		if (fork() == 0) {
#ifdef __linux__
			prctl(PR_SET_PDEATHSIG, SIGKILL); /* whoever ends the server ends its children */
#endif
			alarm(WATCHDOG);
			serve(fd);
			_exit(0);
		}
		close(fd);
	}
	while (wait(&status) > 0)
		failed |= status;
	return failed != 0;
}

int main(int argc, char **argv) {
	if (argc < 2)
		usage("no role");
	opt.server = strcmp(argv[1], "server") == 0;
	opt.ems = opt.etm = 1;
	opt.count = opt.pings = 1;
	opt.label = "EXPORTER-oneM2M-Connection";
	opt.export_len = 48;
	for (int i = 2; i + 1 < argc; i += 2)
		parse_option(argv[i], argv[i + 1]);
	if (argc % 2 != 0 || opt.export_len > MAX_EXPORT)
		usage("an option without its value, or too much to export");

	signal(SIGPIPE, SIG_IGN);
	if (opt.count == 1)
		alarm(WATCHDOG);
	if (strcmp(argv[1], "list") == 0) {
		for (size_t i = 0; i < all_suites_len; i++)
			if (lib_supports(&all_suites[i]))
				emit("SUITE %s", all_suites[i].name);
		return 0;
	}
	if (!opt.server && strcmp(argv[1], "client") != 0)
		usage("neither client nor server");
	if (opt.suites_len == 0)
		usage("no suite");
	for (size_t i = 0; i < opt.suites_len; i++)
		if (!lib_supports(opt.suites[i])) {
			emit("UNSUPPORTED %s", opt.suites[i]->name);
			return 3;
		}
	lib_setup();
	return opt.server ? run_server() : run_client();
}
