import { Injectable } from '@nestjs/common';
import type { Gauge } from 'prom-client';

import type { FleetFigures } from '../capacity/fleet-figures.js';
import { percentOf } from '../capacity/fleet.js';
import { FleetWatch } from './fleet-watch.js';
import { type GaugeName, scrapeGauge } from './scrape-gauge.js';

/** How full the fleet is. Every backend shows the same: do not add them up. */
@Injectable()
export class FleetMetrics {
  constructor(watch: FleetWatch) {
    const show = (name: GaugeName, read: (gauge: Gauge, fleet: FleetFigures) => void): void =>
      scrapeGauge(name, (gauge) => {
        const { figures } = watch;
        if (figures) read(gauge, figures);
      });

    show(
      {
        name: 'bore_capacity_utilization_percent',
        help: 'Open tunnels as a share of all that may be open, the reserved share included; 100 when none may be',
      },
      (gauge, { open, total }) => gauge.set(percentOf(open, total)),
    );
    show(
      { name: 'bore_capacity_total', help: 'Tunnels that may be open at once, the reserved share included' },
      (gauge, { total }) => gauge.set(total),
    );
    show({ name: 'bore_tunnels', help: 'Tunnels that are not closed', labelNames: ['state'] }, (gauge, { tunnels }) => {
      for (const [state, count] of Object.entries(tunnels)) gauge.set({ state }, count);
    });
    show(
      { name: 'bore_servers', help: 'bore-servers of the register', labelNames: ['state'] },
      (gauge, { servers }) => {
        for (const [state, count] of Object.entries(servers)) gauge.set({ state }, count);
      },
    );
    show(
      {
        name: 'bore_server_tunnels',
        help: 'Open tunnels of each bore-server that is not disabled',
        labelNames: ['server'],
      },
      (gauge, { perServer }) => {
        for (const { id: server, open } of perServer) gauge.set({ server }, open);
      },
    );
    show(
      { name: 'bore_server_capacity', help: 'How many it may have', labelNames: ['server'] },
      (gauge, { perServer }) => {
        for (const { id: server, capacity } of perServer) gauge.set({ server }, capacity);
      },
    );
    show(
      { name: 'bore_location_tunnels', help: 'Open tunnels of each location', labelNames: ['location'] },
      (gauge, { perLocation }) => {
        for (const { location, open } of perLocation) gauge.set({ location }, open);
      },
    );
    show(
      {
        name: 'bore_location_capacity',
        help: 'How many it may have: on servers that take no new ones, as many as are open',
        labelNames: ['location'],
      },
      (gauge, { perLocation }) => {
        for (const { location, capacity } of perLocation) gauge.set({ location }, capacity);
      },
    );
    scrapeGauge(
      {
        name: 'bore_fleet_sample_age_seconds',
        help: 'How old the figures of the fleet are; of none, time since the start',
      },
      (gauge) => gauge.set(watch.ageSeconds),
    );
    scrapeGauge(
      { name: 'bore_database_up', help: '1: the database answered this backend when it was asked last, within 1.5 s' },
      (gauge) => gauge.set(Number(watch.databaseAnswers)),
    );
  }
}
