// An OpenID-certified identity provider for the tests: oidc-provider with clients, resources and keys that suit them.
//
//   node provider.mjs --modules DIRECTORY --state DIRECTORY [--port PORT] [--tls CHAIN,KEY]
//
// It listens on loopback, on a port that the kernel gives unless one is named, and says so in one line. What tests need
// beside what every provider has is beneath /_test/. The state is only the key of the client that proves itself by one:
// tokens are in memory, and signing keys are new with every start.
//
// What a token is like is said by the resource that it is asked for, as URL parameters (see `resource` below).

import { generateKeyPairSync, createPrivateKey, createPublicKey, randomUUID } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    modules: { type: 'string' },
    state: { type: 'string' },
    port: { type: 'string', default: '0' },
    tls: { type: 'string' },
  },
});

// The modules are not beside this file, where an import would look for them.
const modules = createRequire(path.join(path.resolve(options.modules), 'none.js'));
const { Provider } = await import(pathToFileURL(modules.resolve('oidc-provider')));

const SECRET = 'a secret that is shared with the provider';

// By way of PEM: node 20 now and then blocks for ever in exporting a key object that it has just generated.
function keyPair(type, settings) {
  const encoded = {
    publicKeyEncoding: { format: 'pem', type: 'spki' },
    privateKeyEncoding: { format: 'pem', type: 'pkcs8' },
  };
  return createPrivateKey(generateKeyPairSync(type, { ...settings, ...encoded }).privateKey);
}

function signingKeys() {
  const keys = [
    keyPair('rsa', { modulusLength: 2048 }),
    keyPair('ec', { namedCurve: 'P-256' }),
    keyPair('ec', { namedCurve: 'P-384' }),
    keyPair('ed25519'),
  ];
  return keys.map((key) => ({ ...key.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig' }));
}

// The key by which the client `gateway-by-key` proves itself.
const clientKeyFile = path.join(options.state, 'client-key.pem');
if (!existsSync(clientKeyFile)) {
  writeFileSync(`${clientKeyFile}.new`, keyPair('ec', { namedCurve: 'P-256' }).export({ format: 'pem', type: 'pkcs8' }));
  renameSync(`${clientKeyFile}.new`, clientKeyFile);
}
const clientKey = createPublicKey(createPrivateKey(readFileSync(clientKeyFile))).export({ format: 'jwk' });

const grantless = { redirect_uris: [], response_types: [] };
const clients = [
  // Gets tokens, for itself and for users, and revokes them.
  { ...grantless, client_id: 'shop', client_secret: SECRET, grant_types: ['client_credentials', 'password'], scope: 'orders:read orders:write' },
  // These only ask about them.
  { ...grantless, client_id: 'gateway', client_secret: SECRET, grant_types: [] },
  {
    ...grantless,
    client_id: 'gateway-by-key',
    grant_types: [],
    token_endpoint_auth_method: 'private_key_jwt',
    jwks: { keys: [{ ...clientKey, kid: 'client-key', use: 'sig' }] },
  },
];

// https://ANYTHING/?alg=ES256&audience=orders&ttl=60&roles=clerk,reader: tokens of that algorithm, audience, time to
// live in seconds, and with these roles. Without `alg` they are opaque.
function resource(identifier) {
  const parameters = new URL(identifier).searchParams;
  const alg = parameters.get('alg');
  return {
    scope: 'orders:read orders:write',
    audience: parameters.get('audience') ?? 'orders',
    accessTokenTTL: Number(parameters.get('ttl') ?? 600),
    accessTokenFormat: alg ? 'jwt' : 'opaque',
    jwt: alg ? { sign: { alg } } : undefined,
  };
}

function extraTokenClaims(ctx) {
  const identifier = ctx.oidc.params.resource;
  const roles = identifier && new URL(identifier).searchParams.get('roles');
  return roles ? { realm_access: { roles: roles.split(',') } } : undefined;
}

// The grant of RFC 6749 section 4.3, which gets tokens for users in one step. Whatever name they give is theirs.
async function password(ctx) {
  const { client, params, provider } = ctx.oidc;
  const token = new provider.AccessToken({ client, accountId: params.username, scope: params.scope, gty: 'password' });
  token.resourceServer = new provider.ResourceServer(params.resource, resource(params.resource));
  token.expiresIn = token.resourceServer.accessTokenTTL;
  ctx.body = { access_token: await token.save(), expires_in: token.expiration, scope: token.scope, token_type: 'Bearer' };
}

function providerWith(keys, issuer) {
  const provider = new Provider(issuer, {
    clients,
    jwks: { keys },
    scopes: ['orders:read', 'orders:write'],
    clientAuthMethods: ['client_secret_basic', 'private_key_jwt'],
    extraTokenClaims,
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true, allowedPolicy: () => true },
      revocation: { enabled: true },
      resourceIndicators: { enabled: true, getResourceServerInfo: (_, identifier) => resource(identifier) },
    },
  });
  provider.registerGrantType('password', password, ['username', 'resource', 'scope']);
  provider.on('server_error', (_, error) => console.error(error));
  return provider;
}

let keys = signingKeys();
let provider;
// How often each path was asked for.
const asked = {};

const controls = {
  // New signing keys. The old ones stay in the published set for `keep=1`, and vanish otherwise.
  rotate(url) {
    const made = signingKeys();
    keys = url.searchParams.get('keep') === '1' ? [...made, ...keys] : made;
    provider = providerWith(keys, provider.issuer);
    return { kids: keys.map((key) => key.kid) };
  },
  asked: () => asked,
};

function serve(request, response) {
  const url = new URL(request.url, provider.issuer);
  const control = url.pathname.startsWith('/_test/') && controls[url.pathname.slice('/_test/'.length)];
  if (control) {
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify(control(url)));
    return;
  }
  asked[url.pathname] = (asked[url.pathname] ?? 0) + 1;
  provider.callback()(request, response);
}

const [chain, key] = options.tls?.split(',') ?? [];
const server = options.tls
  ? https.createServer({ cert: readFileSync(chain), key: readFileSync(key) }, serve)
  : http.createServer(serve);
server.listen(Number(options.port), '127.0.0.1', () => {
  const issuer = `${options.tls ? 'https' : 'http'}://127.0.0.1:${server.address().port}`;
  provider = providerWith(keys, issuer);
  console.log(`the identity provider listens on ${issuer}`);
});
