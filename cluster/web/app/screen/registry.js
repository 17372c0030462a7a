// All screens, in the order of the menu. A screen is one module that exports
//
//   export const screen = { id, title, key, of: "job" | "cluster", when?, view }
//
// `id` is its part of the URL, `key` the letter after `g` that opens it, `of` whether it belongs to
// one job. `when(session)` says whether this server has the screen; without it every one has.
// `view` is a component; it gets { job, route, session, theme }, where `job` is the job's name or
// null. A screen polls what it shows with usePolled and wraps it in Loaded.

import { screen as audit } from "./cluster/audit.js";
import { screen as jobs } from "./cluster/jobs.js";
import { screen as logs } from "./cluster/logs.js";
import { screen as workers } from "./cluster/workers.js";
import { screen as capture } from "./data/capture.js";
import { screen as letters } from "./data/letters.js";
import { screen as rows } from "./data/rows.js";
import { screen as schemas } from "./data/schemas.js";
import { screen as topics } from "./data/topics.js";
import { screen as alerts } from "./job/alerts.js";
import { screen as freshness } from "./job/freshness.js";
import { screen as generations } from "./job/generations.js";
import { screen as ingest } from "./job/ingest.js";
import { screen as operators } from "./job/operators.js";
import { screen as river } from "./job/river.js";
import { screen as sink } from "./job/sink.js";
import { screen as views } from "./job/views.js";

/**
 * @typedef {{ id: string, title: string, key: string, of: "job" | "cluster", view: any,
 *   when?: (session: any) => boolean }} Screen
 */

/** @type {Screen[]} */
export const screens = [
  river, freshness, ingest, capture, topics, schemas, views, rows, operators, sink, letters,
  generations, alerts,
  jobs, workers, logs, audit,
];
