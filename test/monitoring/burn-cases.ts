/** The burn-rate alerts: four objectives, each over three pairs of windows. */
import type { AlertCase, Series } from './alert-cases.js';

/** A minute's requests of a busy platform, and of one that nearly nobody uses. */
const BUSY = 10_000;

const HTTP = 'job="bore-backend",instance="b1",method="GET",route="/api/v1/tunnels"';
const SERVER = 'job="bore-server",instance="s1"';

interface Objective {
  readonly alert: string;
  readonly job: string;
  /** Share that may be bad. */
  readonly budget: number;
  readonly says: string;
  /** Counters of so many good and bad ones a minute, by what a minute's growth looks like over time. */
  readonly series: (total: string, bad: string, good: string) => Series;
}

const OBJECTIVES: readonly Objective[] = [
  {
    alert: 'ErrorBudgetBurn',
    job: 'bore-backend',
    budget: 0.001,
    says: 'of API requests fail',
    series: (_, bad, good) => ({
      [`http_requests_total{${HTTP},status="200"}`]: good,
      [`http_requests_total{${HTTP},status="500"}`]: bad,
    }),
  },
  {
    alert: 'LatencyP95Burn',
    job: 'bore-backend',
    budget: 0.05,
    says: 'of API requests take longer than 200 ms',
    series: (total, _, good) => ({
      [`http_request_duration_seconds_count{${HTTP}}`]: total,
      [`http_request_duration_seconds_bucket{${HTTP},le="0.2"}`]: good,
    }),
  },
  {
    alert: 'LatencyP99Burn',
    job: 'bore-backend',
    budget: 0.01,
    says: 'of API requests take longer than 500 ms',
    series: (total, _, good) => ({
      [`http_request_duration_seconds_count{${HTTP}}`]: total,
      [`http_request_duration_seconds_bucket{${HTTP},le="0.5"}`]: good,
    }),
  },
  {
    alert: 'TunnelSetupBurn',
    job: 'bore-server',
    budget: 0.01,
    says: 'of tunnels are not open within a second',
    series: (_, bad, good) => ({
      [`bore_server_handshake_seconds_count{${SERVER}}`]: good,
      [`bore_server_handshake_seconds_bucket{${SERVER},le="1"}`]: good,
      [`bore_server_handshakes_total{${SERVER},outcome="failed"}`]: bad,
    }),
  },
];

interface Pace {
  readonly pace: string;
  readonly times: number;
  /** Minutes: of the long window, of the short one, and until that is clean. */
  readonly long: number;
  readonly short: number;
  readonly clean: number;
}

const PACES: readonly Pace[] = [
  { pace: 'Fast', times: 14.4, long: 60, short: 5, clean: 15 },
  { pace: 'Slow', times: 6, long: 360, short: 30, clean: 45 },
  { pace: 'Steady', times: 1, long: 4320, short: 360, clean: 400 },
];

/** Grows by `first` a minute for so long, and by `then` after that. */
function grows(first: number, minutes: number, then: number, more: number): string {
  const reached = first * minutes;
  return `0+${first}x${minutes} ${reached + then}+${then}x${more}`;
}

/** Of so many a minute a share is bad: first one share, then another. */
function shares(
  { series }: Objective,
  total: number,
  first: number,
  minutes: number,
  then: number,
  more: number,
): Series {
  const counter = (of: (share: number) => number) => grows(of(first), minutes, of(then), more);
  return series(
    counter(() => total),
    counter((share) => total * share),
    counter((share) => total * (1 - share)),
  );
}

export const BURN_CASES: readonly AlertCase[] = OBJECTIVES.flatMap((objective) =>
  PACES.map(({ pace, times, long, short, clean }): AlertCase => {
    const { alert, job, budget, says } = objective;
    const bound = budget * times;
    const end = long + clean;
    return {
      alert: `${alert}${pace}`,
      bad: shares(objective, BUSY, bound * 1.05, long, 0, clean),
      firesAt: long,
      silentAt: end,
      labels: { job },
      summary: `${Number((bound * 105).toPrecision(4))}% ${says}`,
      silent: {
        'just below': shares(objective, BUSY, bound * 0.95, long, bound * 0.95, clean),
        // the short window is all bad, the long one is not
        'a good time, and trouble for a short one': shares(
          objective,
          BUSY,
          0,
          long - short,
          bound * 1.3,
          short + clean,
        ),
        // nine bad ones in the long window, and nothing else
        'nearly nobody there': shares(objective, 9 / long, 1, long, 1, clean),
      },
    };
  }),
);
