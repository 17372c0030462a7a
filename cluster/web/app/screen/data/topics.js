// Topics of a job with their partitions, sizes and rates, and a message browser.

import { address, part } from "../../part/api.js";
import { bytes, count, moment, rate } from "../../part/format.js";
import { usePolled } from "../../part/poll.js";
import { link, setQuery } from "../../part/route.js";
import { Badge, Loaded, Panel } from "../../part/state.js";
import { Table } from "../../part/table.js";
import { html } from "../../part/ui.js";
import { Decoded, given } from "./shown.js";

const LIST_MS = 5000;
const DOWNLOAD_MESSAGES = 10_000; // as many as an answer of JSON lines holds

const ENDED = /** @type {Record<string, string>} */ ({
  end: "This is all up to the end of the topic.",
  limit: "There are more messages.",
  bound: "The request looked at as much as it may; there is more.",
  time: "The log did not give all in time; there may be more.",
});

/** The part of a topic's behaviour that a sum over its partitions tells. @param {any} topic */
function behind(topic) {
  const known = topic.partitions.map((/** @type {any} */ it) => it.behind)
    .filter((/** @type {any} */ it) => it !== null);
  const sum = (/** @type {number} */ a, /** @type {number} */ b) => a + b;
  return known.length ? known.reduce(sum) : null;
}

/** @param {string} job @returns {import("../../part/table.js").Column[]} */
const columns = (job) => [
  { id: "name", head: "Topic", of: (it) => it.name,
    cell: (it) => html`<a href=${link(job, "topics", { topic: it.name })}>${it.name}</a>` },
  { id: "uses", head: "Used for", of: (it) => it.uses.join(", ") },
  { id: "partitions", head: "Partitions", numeric: true, of: (it) => it.partitions.length },
  { id: "records", head: "Records", numeric: true, of: (it) => it.records,
    cell: (it) => count(it.records) },
  { id: "bytes", head: "Size", numeric: true, of: (it) => it.bytes_about,
    cell: (it) => bytes(it.bytes_about) },
  { id: "rate", head: "Rate", numeric: true, of: (it) => it.records_per_s,
    cell: (it) => rate(it.records_per_s) },
  { id: "behind", head: "Lag", numeric: true, of: behind,
    cell: (it) => count(behind(it)) },
  { id: "problem", head: "Problem", of: (it) => it.problem ?? "" },
];

/** @type {import("../../part/table.js").Column[]} */
const PARTITIONS = [
  { id: "partition", head: "Partition", numeric: true, of: (it) => it.partition },
  { id: "low", head: "First offset", numeric: true, of: (it) => it.low,
    cell: (it) => count(it.low) },
  { id: "high", head: "Next offset", numeric: true, of: (it) => it.high,
    cell: (it) => count(it.high) },
  { id: "behind", head: "Lag", numeric: true, of: (it) => it.behind,
    cell: (it) => count(it.behind) },
];

/** @type {import("../../part/table.js").Column[]} */
const MESSAGES = [
  { id: "partition", head: "Partition", numeric: true, fixed: true, of: (it) => it.partition },
  { id: "offset", head: "Offset", numeric: true, fixed: true, of: (it) => it.offset },
  { id: "at", head: "Time", fixed: true, of: (it) => moment(it.at_ms) },
  { id: "key", head: "Key", fixed: true, of: () => "",
    cell: (it) => html`<${Decoded} of=${it.key} none="no key" />` },
  { id: "value", head: "Value", fixed: true, of: () => "",
    cell: (it) => html`<${Decoded} of=${it.value} none="tombstone" />` },
  { id: "headers", head: "Headers", fixed: true, of: () => "",
    cell: (it) => it.headers.map((/** @type {[string, any]} */ [name, value]) => html`
      <div><strong>${name}</strong> <${Decoded} of=${value} none="null" /></div>`) },
];

/** What the URL asks of the browser. @param {Record<string, string>} query */
function asked(query) {
  const at = query.at ? new Date(query.at).getTime() : undefined;
  return {
    partition: query.partition, offset: query.offset, from: query.from, filter: query.filter,
    limit: query.limit, at_ms: Number.isNaN(at) ? undefined : at,
  };
}

/** @param {{ job: string, route: any, topic: any }} props */
function Browser({ job, route, topic }) {
  const { query } = route;
  const path = `jobs/${part(job)}/topics/${part(topic)}/messages`;
  const wanted = asked(query);
  const polled = usePolled(address(path, wanted).replace(/^api\/v1\//, ""), LIST_MS);
  const lines = address(path, { ...wanted, limit: DOWNLOAD_MESSAGES, lines: true });
  const seek = (/** @type {any} */ event) => setQuery(route, { ...given(event), from: "" });
  const none = { partition: "", offset: "", at: "", filter: "", from: "", limit: "" };
  const on = (/** @type {any} */ next) => {
    const from = Object.entries(next).map(([it, offset]) => `${it}:${offset}`).join(",");
    setQuery(route, { offset: "", at: "", from });
  };
  return html`<${Panel} title=${`Messages of ${topic}`}
    aside=${html`<a href=${lines} download>Download as JSON lines</a>`}>
    <form class="row" onSubmit=${seek} key=${JSON.stringify(query)}>
      <label>Partition <input name="partition" size="4" inputmode="numeric" placeholder="all"
        value=${query.partition ?? ""} /></label>
      <label>From offset <input name="offset" size="10" inputmode="numeric" placeholder="newest"
        value=${query.offset ?? ""} /></label>
      <label>From time <input name="at" type="datetime-local" step="1"
        value=${query.at ?? ""} /></label>
      <label>At most <input name="limit" size="4" inputmode="numeric" placeholder="50"
        value=${query.limit ?? ""} /></label>
      <label class="grow">Contains <input name="filter" type="search" data-filter
        value=${query.filter ?? ""} /></label>
      <button type="submit" class="main">Show</button>
      <button type="button" onClick=${() => setQuery(route, none)}>Newest</button></form>
    <${Loaded} polled=${polled} what="the messages" empty="No message is there that fits."
      isEmpty=${(/** @type {any} */ it) => it.messages.length === 0}>
      ${(/** @type {any} */ page) => html`<${Table} label="Messages" columns=${MESSAGES}
        rows=${page.messages}
        rowKey=${(/** @type {any} */ it) => `${it.partition}:${it.offset}`} />`}<//>
    ${polled.data && html`<div class="row"><span class="quiet">${ENDED[polled.data.ended]}
      ${" "}${count(polled.data.looked)} records were looked at.</span>
      ${polled.data.ended !== "end" && html`<button type="button"
        onClick=${() => on(polled.data.next)}>Go on</button>`}</div>`}<//>`;
}

/** @param {{ job: string, route: any }} props */
function Topics({ job, route }) {
  const polled = usePolled(`jobs/${part(job)}/topics`, LIST_MS);
  const { topic } = route.query;
  const chosen = polled.data?.topics.find((/** @type {any} */ it) => it.name === topic);
  return html`<${Panel} title="Topics"
      aside="Records are the offsets held, sizes are estimated, rates are of the last minute.">
      <${Loaded} polled=${polled} what="the topics" empty="The job has no topic."
        isEmpty=${(/** @type {any} */ it) => it.topics.length === 0}>
        ${(/** @type {any} */ told) => html`
          ${told.problem && html`<div class="note failed">${told.problem}</div>`}
          <${Table} label="Topics" columns=${columns(job)} rows=${told.topics}
            rowKey=${(/** @type {any} */ it) => it.name} />`}<//><//>
    ${topic && html`${chosen && html`<${Panel} title=${`Partitions of ${topic}`}
        aside=${chosen.problem && html`<${Badge} state="unknown" label=${chosen.problem} />`}>
        <${Table} label="Partitions" name="parts" columns=${PARTITIONS} rows=${chosen.partitions}
          rowKey=${(/** @type {any} */ it) => String(it.partition)}
          empty="The topic is not there yet." /><//>`}
      <${Browser} key=${topic} job=${job} route=${route} topic=${topic} />`}`;
}

export const screen = {
  id: "topics", title: "Topics", key: "t", of: /** @type {const} */ ("job"), view: Topics,
};
