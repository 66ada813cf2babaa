/** The load test as the deployment guide calls it, after `npm run build`; `npm run load-test` builds first. */
import '../dist/load-test/main.js';
