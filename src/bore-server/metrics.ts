import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

import { buildVersion } from '../protocol/build-version.js';

/** How often each handshake may end; there from the start, or the first of a kind would not show as a change. */
const HANDSHAKE_OUTCOMES = [
  'hello',
  'accept',
  'refused',
  'invalid',
  'failed',
  'timeout',
  'shed',
  'banned',
  'no_header',
];
const VISITOR_OUTCOMES = ['carried', 'not_fetched', 'limit', 'denied', 'no_header'];
const HAND_OVER_OUTCOMES = ['forwarded', 'owner_unreachable', 'taken', 'no_peer'];

/** What the server counts by itself, read when somebody scrapes. */
export interface ServerFigures {
  /** Visitors, waiting or carried; and of these, waiting. */
  readonly connections: number;
  readonly visitorsPending: number;
  readonly sessions: number;
  readonly sessionsMax: number;
  readonly handshakesOpen: number;
  readonly draining: boolean;
  readonly bytes: { readonly in: number; readonly out: number };
}

/** What a server with a control plane knows of it. */
export interface PlaneFigures {
  /** The last heartbeat, or registration, was answered. */
  readonly up: boolean;
  /** Since one was answered last; without any, since the start. */
  readonly answerAgeSeconds: number;
  /** Age of the oldest usage or record that is not acknowledged; 0: there is none. */
  readonly reportAgeSeconds: number;
  /** Records and tunnels' usage that are not acknowledged. */
  readonly reportsPending: number;
}

/** What the process shows at `/metrics`. */
export class Metrics {
  readonly registry = new Registry();

  readonly handshakes = new Counter({
    name: 'bore_server_handshakes_total',
    help: 'Connections to the control port, by how their handshake ended',
    labelNames: ['outcome'],
    registers: [this.registry],
  });

  readonly visitors = new Counter({
    name: 'bore_server_visitors_total',
    help: 'Visitors, by what became of them first: carried, not_fetched (the client did not come), limit, denied (the tunnel’s networks) or no_header',
    labelNames: ['outcome'],
    registers: [this.registry],
  });

  readonly setupSeconds = new Histogram({
    name: 'bore_server_setup_seconds',
    help: 'Time from a visitor’s arrival until its client has fetched it',
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers: [this.registry],
  });

  readonly handshakeSeconds = new Histogram({
    name: 'bore_server_handshake_seconds',
    help: 'Time from a client’s connection until the public port of its tunnel is open; only of clients that got a session',
    // around the target of 300 ms, and up to the 3 s after which stock clients have gone
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 3, 5],
    registers: [this.registry],
  });

  readonly handOvers = new Counter({
    name: 'bore_server_hand_overs_total',
    help: 'Connections between servers of our name: forwarded or owner_unreachable, and in the other role taken or no_peer (no proof)',
    labelNames: ['outcome'],
    registers: [this.registry],
  });

  readonly forwardedBytes = new Counter({
    name: 'bore_server_forwarded_bytes_total',
    help: 'Bytes passed on between clients and other servers of our name, both directions added',
    registers: [this.registry],
  });

  readonly recordsLost = new Counter({
    name: 'bore_server_connection_records_lost_total',
    help: 'Records of ended connections given up because too many waited for the control plane',
    registers: [this.registry],
  });

  readonly stateSaveFailures = new Counter({
    name: 'bore_server_state_save_failures_total',
    help: 'Times that the state file could not be written',
    registers: [this.registry],
  });

  constructor() {
    collectDefaultMetrics({ register: this.registry });
    for (const outcome of HANDSHAKE_OUTCOMES) this.handshakes.inc({ outcome }, 0);
    for (const outcome of VISITOR_OUTCOMES) this.visitors.inc({ outcome }, 0);
    for (const outcome of HAND_OVER_OUTCOMES) this.handOvers.inc({ outcome }, 0);
    new Gauge({
      name: 'bore_server_build_info',
      help: 'Always 1; the label says which version runs',
      labelNames: ['version'],
      registers: [this.registry],
    }).set({ version: buildVersion() }, 1);
  }

  /** Servers that share our name. */
  observePeers(read: () => number): void {
    this.gauge('bore_server_peers', 'Other servers of our public name, as the control plane said last', read);
  }

  /** Connections passed on now. */
  observeForwarded(read: () => number): void {
    this.gauge('bore_server_forwarded_connections', 'Connections passed on to other servers of our name now', read);
  }

  observe(read: () => ServerFigures): void {
    this.gauge('bore_server_connections', 'Visitor connections open now', () => read().connections);
    this.gauge(
      'bore_server_visitors_pending',
      'Of these, not fetched by their client yet',
      () => read().visitorsPending,
    );
    this.gauge('bore_server_sessions', 'Tunnels carried now: each is one client’s session', () => read().sessions);
    this.gauge('bore_server_sessions_max', 'How many there may be at once', () => read().sessionsMax);
    this.gauge('bore_server_handshakes_open', 'Control connections in their handshake', () => read().handshakesOpen);
    this.gauge('bore_server_draining', '1: the server wants no new tunnels', () => Number(read().draining));
    new Counter({
      name: 'bore_server_bytes_total',
      help: 'Bytes from visitors (in) and to visitors (out)',
      labelNames: ['direction'],
      registers: [this.registry],
      collect() {
        const { bytes } = read();
        this.reset();
        this.inc({ direction: 'in' }, bytes.in);
        this.inc({ direction: 'out' }, bytes.out);
      },
    });
  }

  observePlane(read: () => PlaneFigures): void {
    this.gauge('bore_server_control_plane_up', '1: the last heartbeat was answered', () => Number(read().up));
    this.gauge(
      'bore_server_heartbeat_age_seconds',
      'Time since a heartbeat was answered last; without any, since the start',
      () => read().answerAgeSeconds,
    );
    this.gauge(
      'bore_server_report_age_seconds',
      'Age of the oldest usage or record that the control plane has not acknowledged; 0: none waits',
      () => read().reportAgeSeconds,
    );
    this.gauge(
      'bore_server_reports_pending',
      'Records of connections, and tunnels with usage, that the control plane has not acknowledged',
      () => read().reportsPending,
    );
  }

  private gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      name,
      help,
      registers: [this.registry],
      collect() {
        this.set(read());
      },
    });
  }
}
