import { type Group, notChecked } from './finding.js';

/** Of the checklist, what no program can see from here. */
export function byHand(): Group {
  const ask = (id: string, title: string, how: string) => ({ id, title, run: () => notChecked('by hand', how) });
  return {
    name: 'By hand',
    checks: [
      ask(
        'firewall',
        'the firewall lets in what it should, and no more',
        'from outside: 443, 7835 and the public ports answer; 5432, 6379, 3000, 7836 and 9090 do not (docs/deployment.md#network)',
      ),
      ask('dashboards', 'the dashboard shows figures', 'open it in Grafana (docs/monitoring.md#5-grafana)'),
      ask(
        'alerts-heard',
        'somebody hears of an alert',
        'amtool alert add … (docs/monitoring.md#4-alertmanager-and-slack)',
      ),
      ask('restore', 'a restore was rehearsed', 'docs/backup.md#the-drill, with a copy of your data'),
      ask('load', 'the load test was passed', 'docs/load-test.md'),
    ],
  };
}
