import { once } from 'node:events';
import tls from 'node:tls';

import { fail, type Finding, pass, reasonOf } from './finding.js';

const TIMEOUT_MS = 5_000;
/** Let's Encrypt renews 30 days before the end: what is closer has failed to renew for two weeks. */
const DAYS_MIN = 14;
const DAY_MS = 86_400_000;

/** What the TLS of a URL is like: who vouches for it, for how long, and how old a protocol it takes. */
export async function checkTls(url: URL): Promise<Finding> {
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const place = { host, port: Number(url.port || 443) };
  let days: number;
  let protocol: string | null;
  try {
    const socket = await connect(place, {});
    protocol = socket.getProtocol();
    days = Math.floor((Date.parse(socket.getPeerCertificate().valid_to) - Date.now()) / DAY_MS);
    socket.destroy();
  } catch (error) {
    return fail(
      `${place.host}:${place.port}: ${reasonOf(error)}`,
      'serve the whole chain of a certificate for this name (Node reads an authority of your own from NODE_EXTRA_CA_CERTS)',
    );
  }
  if (days < DAYS_MIN)
    return fail(`the certificate ends in ${days} days`, 'renew it, and find out why that does not happen by itself');
  if (await takesOldProtocol(place))
    return fail('TLS 1.1 or older is accepted', 'ssl_protocols TLSv1.2 TLSv1.3; in every server block of the balancer');
  return pass(`${protocol}, a certificate for ${days} more days`);
}

/** Resolves when the handshake is done, with the certificate checked. */
async function connect(
  { host, port }: { readonly host: string; readonly port: number },
  options: tls.ConnectionOptions,
): Promise<tls.TLSSocket> {
  // an address is no server name
  const servername = /^[\d.]+$|:/.test(host) ? {} : { servername: host };
  const socket = tls.connect({ host, port, ...servername, ...options });
  try {
    await once(socket, 'secureConnect', { signal: AbortSignal.timeout(TIMEOUT_MS) });
    return socket;
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

async function takesOldProtocol(place: { readonly host: string; readonly port: number }): Promise<boolean> {
  try {
    // OpenSSL itself speaks it at its lowest level of security only
    const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const;
    const socket = await connect(place, old);
    socket.destroy();
    return true;
  } catch {
    // refused, as it should be
    return false;
  }
}
