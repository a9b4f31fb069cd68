// A peer on Node's tls module, with the command line and the report lines of
// peer.h. Node has no DTLS, no getter for the extensions agreed on, and no
// group choice on the client side of a PSK-only session beyond ecdhCurve.
'use strict';

const tls = require('node:tls');

// Node names only some of OpenSSL's options.
const SSL_OP_NO_EXTENDED_MASTER_SECRET = 1 << 0;
const SSL_OP_NO_ENCRYPT_THEN_MAC = 1 << 19;

const suites = {
  TLS_PSK_WITH_AES_128_CBC_SHA256: 'PSK-AES128-CBC-SHA256',
  TLS_PSK_WITH_AES_128_CCM_8: 'PSK-AES128-CCM8',
  TLS_PSK_WITH_AES_128_CCM: 'PSK-AES128-CCM',
  TLS_PSK_WITH_AES_128_GCM_SHA256: 'PSK-AES128-GCM-SHA256',
  TLS_PSK_WITH_AES_256_GCM_SHA384: 'PSK-AES256-GCM-SHA384',
  TLS_PSK_WITH_CHACHA20_POLY1305_SHA256: 'PSK-CHACHA20-POLY1305',
  TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256: 'ECDHE-PSK-AES128-CBC-SHA256',
  TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256: 'ECDHE-PSK-CHACHA20-POLY1305',
};

const role = process.argv[2];
const opt = {
  proto: 'tls', ems: 'on', etm: 'on', count: '1', pings: '1', bulk: '0',
  label: 'EXPORTER-oneM2M-Connection', 'export-len': '48', identity: '',
};
for (let i = 3; i + 1 < process.argv.length; i += 2) opt[process.argv[i].slice(2)] = process.argv[i + 1];
const identity = opt['identity-hex'] ? Buffer.from(opt['identity-hex'], 'hex').toString('latin1') : opt.identity;

const emit = (line) => process.stdout.write(line + '\n');

function supported(name) {
  if (!(name in suites) || opt.proto !== 'tls') return false;
  try {
    tls.createSecureContext({ ciphers: suites[name] + ':@SECLEVEL=0' });
    return true;
  } catch {
    return false;
  }
}

function fail(error) {
  // OpenSSL tells a received alert in its error code only.
  const alert = /SSL alert number (\d+)/.exec(error.message);
  emit(`FAILED sent=-1 received=${alert ? alert[1] : -1} ${error.message.trim().split('\n')[0]}`);
  process.exitCode = 1;
}

function settings() {
  let options = 0;
  if (opt.ems === 'off') options |= SSL_OP_NO_EXTENDED_MASTER_SECRET;
  if (opt.etm === 'off') options |= SSL_OP_NO_ENCRYPT_THEN_MAC;
  const s = {
    minVersion: 'TLSv1.2',
    maxVersion: 'TLSv1.2',
    ciphers: opt.suite.split(':').map((name) => suites[name]).join(':') + ':@SECLEVEL=0',
    secureOptions: options,
  };
  if (opt.group) s.ecdhCurve = opt.group;
  return s;
}

function reportSession(socket, sni) {
  const suite = socket.getCipher().standardName;
  const exported = socket.exportKeyingMaterial(Number(opt['export-len']), opt.label).toString('hex');
  emit(`SESSION suite=${suite} ems=-1 etm=-1 identity=${Buffer.from(identity, 'latin1').toString('hex')} ` +
    `sni=${sni || '-'} export=${exported} client_random=- server_random=-`);
}

// Node hides whether the peer closed with close_notify: 'end' comes with either.
function serve() {
  let left = Number(opt.count);
  const server = tls.createServer({
    ...settings(),
    pskIdentityHint: opt.hint,
    pskCallback: (socket, id) => (id === identity ? Buffer.from(opt.psk, 'hex') : null),
  }, (socket) => {
    reportSession(socket, socket.servername);
    socket.on('data', (data) => {
      if (data.subarray(0, 4).toString() === 'ping') data[1] = 'o'.charCodeAt(0);
      socket.write(data);
    });
    socket.on('end', () => { emit('CLOSED end'); socket.end(); });
    socket.on('error', fail);
  });
  server.on('connection', () => { if (--left === 0) server.close(); });
  server.on('tlsClientError', fail);
  const [host, port] = opt.addr.split(':');
  server.listen(Number(port), host, () => emit(`READY ${server.address().port}`));
}

function connect() {
  const [host, port] = opt.addr.split(':');
  const bulk = Buffer.from(Array.from({ length: Number(opt.bulk) }, (_, i) => (i * 7 + Math.floor(i / 251)) & 0xff));
  const expected = [];
  for (let i = 1; i <= Number(opt.pings); i++) expected.push(Buffer.from(`pong ${i}`));
  if (bulk.length > 0) expected.push(bulk);

  const socket = tls.connect({
    ...settings(), host, port: Number(port),
    servername: opt.sni || '',
    pskCallback: () => ({ psk: Buffer.from(opt.psk, 'hex'), identity }),
    checkServerIdentity: () => undefined,
  });
  let received = Buffer.alloc(0);
  const next = () => {
    if (expected.length === 0) {
      emit(`DATA pings=${opt.pings} bulk=${opt.bulk}`);
      socket.end();
      return;
    }
    const message = Buffer.from(expected[0]);
    if (message.subarray(0, 4).toString() === 'pong') message[1] = 'i'.charCodeAt(0);
    socket.write(message);
  };
  socket.on('secureConnect', () => { reportSession(socket, opt.sni); next(); });
  socket.on('data', (data) => {
    received = Buffer.concat([received, data]);
    if (expected.length === 0 || received.length < expected[0].length) return;
    if (!received.equals(expected.shift())) {
      fail(new Error('the data came back changed'));
      socket.destroy();
      return;
    }
    received = Buffer.alloc(0);
    next();
  });
  socket.on('end', () => emit('CLOSED end'));
  socket.on('error', fail);
}

setTimeout(() => process.exit(2), 60000).unref(); // a stuck process ends by itself

if (role === 'list') {
  for (const name of Object.keys(suites)) if (supported(name)) emit(`SUITE ${name}`);
} else {
  const missing = opt.suite.split(':').find((name) => !supported(name));
  if (missing) {
    emit(`UNSUPPORTED ${missing}`);
    process.exitCode = 3;
  } else if (role === 'server') {
    serve();
  } else {
    connect();
  }
}
