import { parser } from '@prometheus-io/lezer-promql';

/** A metric in an expression, and how it is asked for. */
export interface Selector {
  readonly metric: string;
  /** As written: `job=~"$job"`. */
  readonly matchers: readonly string[];
  /** `5m` of `[5m]`; undefined for the value now. */
  readonly range: string | undefined;
  /** The function that it is given to at once: `rate`. */
  readonly givenTo: string | undefined;
}

/** Stands for Grafana's own duration, which is none of PromQL. */
const RATE_INTERVAL = '$__rate_interval';
const STAND_IN = '59s';

/**
 * The metrics of an expression; `$__rate_interval` may stand for a duration.
 * @throws Error that says where it is no PromQL
 */
export function selectorsOf(expression: string): Selector[] {
  const text = expression.replaceAll(RATE_INTERVAL, STAND_IN);
  const found: Selector[] = [];
  parser.parse(text).iterate({
    enter: ({ name, from, to, type, node }) => {
      if (type.isError) throw new Error(`no PromQL at ${from} of ${text}`);
      if (name !== 'VectorSelector') return;
      const inside = text.slice(from, to);
      const matrix = node.parent?.name === 'MatrixSelector' ? node.parent : undefined;
      const range = matrix && /\[(.+)\]$/.exec(text.slice(matrix.from, matrix.to))?.[1];
      // the function's body is between them
      const call = (matrix ?? node).parent?.parent;
      const matchers = node.getChild('LabelMatchers')?.getChildren('UnquotedLabelMatcher') ?? [];
      found.push({
        metric: /^[a-zA-Z_:][\w:]*/.exec(inside)?.[0] ?? '',
        matchers: matchers.map((matcher) => text.slice(matcher.from, matcher.to)),
        range: range === STAND_IN ? RATE_INTERVAL : range,
        givenTo: call?.name === 'FunctionCall' ? /^\w+/.exec(text.slice(call.from, call.to))?.[0] : undefined,
      });
    },
  });
  return found;
}
