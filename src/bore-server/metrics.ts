import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

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
  }

  /** Servers that share our name. */
  observePeers(read: () => number): void {
    new Gauge({
      name: 'bore_server_peers',
      help: 'Other servers of our public name, as the control plane said last',
      registers: [this.registry],
      collect() {
        this.set(read());
      },
    });
  }

  /** Connections passed on now. */
  observeForwarded(read: () => number): void {
    new Gauge({
      name: 'bore_server_forwarded_connections',
      help: 'Connections passed on to other servers of our name now',
      registers: [this.registry],
      collect() {
        this.set(read());
      },
    });
  }

  /** Figures that others keep, read when somebody scrapes. */
  observe(read: () => { connections: number; tunnels: number; bytes: { in: number; out: number } }): void {
    new Gauge({
      name: 'bore_server_connections',
      help: 'Visitor connections open now',
      registers: [this.registry],
      collect() {
        this.set(read().connections);
      },
    });
    new Gauge({
      name: 'bore_server_tunnels',
      help: 'Tunnels carried now',
      registers: [this.registry],
      collect() {
        this.set(read().tunnels);
      },
    });
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
}
