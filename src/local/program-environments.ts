/** What the programs of a platform on one machine are told, each in its environment. */
import type { DatabaseAddress } from '../platform/database/migrations.js';
import type { Secrets } from './start-secrets.js';

interface BackendPlace {
  readonly secrets: Secrets;
  readonly database: DatabaseAddress;
  /** Where it listens. */
  readonly address: string;
  readonly port: number;
  /** Of bore-servers that name none. */
  readonly publicHost: string;
  readonly controlPort: number;
}

/** Of a backend. */
export function backendEnvironment(place: BackendPlace): NodeJS.ProcessEnv {
  const { secrets, database } = place;
  return {
    JWT_SECRET: secrets.JWT_SECRET,
    INTERNAL_API_KEY: secrets.INTERNAL_API_KEY,
    TUNNEL_KEY_SECRET: secrets.TUNNEL_KEY_SECRET,
    ADMIN_EMAIL: secrets.ADMIN_EMAIL,
    ADMIN_PASSWORD: secrets.ADMIN_PASSWORD,
    HOST: place.address,
    PORT: String(place.port),
    DB_HOST: database.host,
    DB_PORT: String(database.port),
    DB_NAME: database.database,
    DB_USER: database.user,
    DB_PASSWORD: database.password,
    BORE_SERVER_HOST: place.publicHost,
    BORE_SERVER_PORT: String(place.controlPort),
  };
}

interface BoreServerPlace {
  readonly secrets: Secrets;
  readonly id: string;
  readonly backendUrl: string;
  readonly publicHost: string;
  /** Where clients and visitors reach it. */
  readonly address: string;
  readonly controlPort: number;
  readonly portRange: { readonly min: number; readonly max: number };
  readonly adminAddress: string;
  readonly adminPort: number;
  readonly dataDir: string;
}

/** Of a bore-server. */
export function serverEnvironment(place: BoreServerPlace): NodeJS.ProcessEnv {
  return {
    BORE_BACKEND_URL: place.backendUrl,
    BORE_BACKEND_API_KEY: place.secrets.INTERNAL_API_KEY,
    BORE_SERVER_ID: place.id,
    BORE_HOST: place.publicHost,
    BORE_BIND_ADDR: place.address,
    BORE_BIND_TUNNELS: place.address,
    BORE_CONTROL_PORT: String(place.controlPort),
    BORE_PORT_RANGE: `${place.portRange.min}:${place.portRange.max}`,
    BORE_ADMIN_PORT: String(place.adminPort),
    BORE_ADMIN_BIND_ADDR: place.adminAddress,
    BORE_ADMIN_URL: `http://${place.adminAddress}:${place.adminPort}`,
    // of a stand-alone server
    BORE_SECRET: undefined,
    BORE_DATA_DIR: place.dataDir,
    // whoever pressed Ctrl-C waits for it
    BORE_DRAIN_SECONDS: '2',
  };
}
