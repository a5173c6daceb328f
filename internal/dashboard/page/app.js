// The live page: it follows /events and writes what it hears into the table.
// Text goes in as text only, so nothing a service says can become markup.
'use strict';

// How each state looks: a tone, a shape, and whether it asks for attention.
const looks = {
  ready: ['good', 'check'], degraded: ['warn', 'warn', true], backoff: ['warn', 'clock', true],
  parked: ['bad', 'stop', true], starting: ['busy', 'work'], draining: ['busy', 'work'],
  stopping: ['busy', 'work'], standby: ['busy', 'pause'], down: ['idle', 'off'], disabled: ['idle', 'none'],
};
// is puts a state into a sentence: "is ready", but "is in backoff".
const is = (s) => `${s.name} is ${{ backoff: 'in ', standby: 'on ' }[s.state] || ''}${s.state}`;
const look = (state) => looks[state] || ['idle', 'none'];

// silence is how long the stream may say nothing: two pings and some.
const silence = 40_000;
const retryAfter = 2_000;
const maxChanges = 50;

const $ = (id) => document.getElementById(id);
let skew = 0; // server's clock minus ours, in ms
const now = () => Date.now() + skew;

// acts: this page has commands, because there is a login.
const acts = $('commands') !== null;

// ---- small builders

function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('class', name === 'work' ? 'icon turning' : 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', '#i-' + name);
  svg.append(use);
  return svg;
}

// ---- words

function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  const pair = (a, au, b, bu) => `${a} ${au}` + (b ? ` ${b} ${bu}` : '');
  if (s < 60) return `${s} s`;
  if (s < 3600) return s < 600 ? pair(Math.floor(s / 60), 'min', s % 60, 's') : `${Math.floor(s / 60)} min`;
  if (s < 86400) return pair(Math.floor(s / 3600), 'h', Math.floor(s / 60) % 60, 'min');
  return pair(Math.floor(s / 86400), 'd', Math.floor(s / 3600) % 24, 'h');
}

function clock(iso) {
  const at = new Date(iso);
  const today = new Date(now());
  if (at.toDateString() === today.toDateString()) return at.toLocaleTimeString();
  const year = at.getFullYear() === today.getFullYear() ? {} : { year: 'numeric' };
  return at.toLocaleString(undefined, { month: 'short', day: 'numeric', hour: 'numeric', minute: '2-digit', ...year });
}

const exact = (iso) => new Date(iso).toLocaleString(undefined, { dateStyle: 'full', timeStyle: 'long' });

function bytes(n) {
  if (n === null) return null;
  const mib = n / 1048576;
  return mib < 1024 ? `${mib.toFixed(1)} MiB` : `${(mib / 1024).toFixed(2)} GiB`;
}

function exitHow(exit) {
  return exit.signal !== null ? `killed by signal ${exit.signal}` : `exit code ${exit.code}`;
}

function exitWords(exit) {
  return exit.asked ? `${exitHow(exit)}, asked for` : exitHow(exit);
}

// age is a <time> that tick keeps right. mode: ago, in or for.
function age(iso, mode, lead) {
  const t = element('time');
  t.dateTime = iso;
  t.title = exact(iso);
  t.dataset.mode = mode;
  t.dataset.lead = lead || '';
  return t; // empty until fill shows it: what ages is no difference
}

function showAge(t) {
  const ms = new Date(t.dateTime) - now();
  let text = span(Math.abs(ms));
  if (t.dataset.mode === 'ago') text = `${span(-ms)} ago`;
  if (t.dataset.mode === 'in') text = ms > 0 ? `in ${span(ms)}` : 'now';
  text = t.dataset.lead + text;
  if (t.textContent !== text) t.textContent = text;
}

const tick = () => document.querySelectorAll('time[data-mode]').forEach(showAge);

// ---- table

const sub = (...content) => { const e = element('span', 'sub'); e.append(...content); return e; };
const main = (...content) => { const e = element('span', 'main'); e.append(...content); return e; };

function cells(s) {
  return {
    name: [main(s.name), ...identity(s)],
    state: stateCell(s),
    since: s.since ? [main(age(s.since, 'for')), sub(clock(s.since))] : null,
    restarts: [main(String(s.restarts)), ...(s.requested_restarts ? [sub(`+${s.requested_restarts} asked for`)] : [])],
    exit: s.last_exit ? [main(exitWords(s.last_exit)), ...reasonOf(s), sub(age(s.last_exit.at, 'ago'))] : null,
    memory: s.memory_bytes === null ? null : [main(bytes(s.memory_bytes))],
    platforms: s.platforms && s.platforms.length ? [platformList(s.platforms)] : null,
    ...(acts ? { commands: s.kind === 'gateway' ? offers(s).map((what) => commandButton(s.name, what)) : null } : {}),
  };
}

function identity(s) {
  const words = [];
  if (s.profile !== null && `gateway-${s.profile}` !== s.name) words.push(`profile ${s.profile}`);
  if (s.pid !== null) words.push(`pid ${s.pid}`);
  if (s.want === 'up' && s.state === 'down') words.push('wanted up');
  if (s.want === 'down' && s.state !== 'down' && s.state !== 'disabled') words.push('wanted down');
  return words.length ? [sub(words.join(' · '))] : [];
}

function reasonOf(s) {
  const reason = s.last_exit.reason;
  return reason && reason !== s.reason && reason !== exitHow(s.last_exit) ? [sub(reason)] : [];
}

function stateCell(s) {
  const [tone, shape] = look(s.state);
  const badge = element('span', `badge ${tone}`);
  badge.append(icon(shape), s.state);
  const out = [badge];
  if (s.reason) out.push(sub(s.reason));
  if (s.until) out.push(sub(age(s.until, 'in', s.state === 'parked' ? 'next trial ' : 'next start ')));
  if (s.holder) out.push(sub(`held by ${s.holder.host}, `, age(s.holder.since, 'for', 'for ')));
  return out;
}

function platformList(platforms) {
  const list = element('ul', 'platform-list');
  for (const p of platforms) {
    const [tone, shape] = look(p.state);
    const item = element('li', tone);
    item.append(icon(shape), element('span', '', `${p.name} `));
    if (p.state === 'ready') item.lastChild.append(element('span', 'muted', 'ready'));
    else item.append(sub(p.state + (p.reason ? `: ${p.reason}` : ''), ', ', age(p.since, 'for', 'for ')));
    list.append(item);
  }
  return list;
}

const columns = { state: 'State', ...(acts ? { commands: 'Commands' } : {}), since: 'Since', restarts: 'Restarts', exit: 'Last exit', memory: 'Memory', platforms: 'Platforms' };
const rows = new Map(); // by name: {tr, state, service, cells: {key: {td, text}}}

function newRow(name) {
  const tr = element('tr');
  tr.setAttribute('role', 'row');
  tr.dataset.service = name;
  const th = element('th');
  th.scope = 'row';
  th.setAttribute('role', 'rowheader');
  tr.append(th);
  const row = { tr, state: null, cells: { name: { td: th, text: null } } };
  for (const [key, label] of Object.entries(columns)) {
    const td = element('td', key === 'restarts' || key === 'memory' ? `${key} number` : key);
    td.setAttribute('role', 'cell');
    td.dataset.label = label;
    tr.append(td);
    row.cells[key] = { td, text: null };
  }
  return row;
}

// fill writes only the cells that differ, so that a selection or a screen
// reader's place survives.
function fill(row, service) {
  for (const [key, content] of Object.entries(cells(service))) {
    const cell = row.cells[key];
    const fresh = content || [main('–')];
    const text = fresh.map((e) => e.outerHTML).join('');
    if (cell.text === text) continue;
    cell.text = text;
    cell.td.classList.toggle('empty', content === null);
    const focused = cell.td.contains(document.activeElement) ? document.activeElement.dataset.command : undefined;
    cell.td.replaceChildren(...fresh);
    if (focused) (cell.td.querySelector(`[data-command="${focused}"]`) || cell.td.querySelector('button'))?.focus();
    cell.td.querySelectorAll('time[data-mode]').forEach(showAge);
  }
  row.tr.dataset.state = service.state;
  row.service = service;
}

function show(report) {
  document.querySelector('.nothing')?.remove();
  const body = $('rows');
  const names = new Set(report.services.map((s) => s.name));
  for (const [name, row] of rows) {
    if (names.has(name)) continue;
    row.tr.remove();
    rows.delete(name);
    note(name, 'is gone');
  }
  report.services.forEach((s, i) => {
    const known = rows.get(s.name);
    const row = known || newRow(s.name);
    fill(row, s);
    if (body.children[i] !== row.tr) body.insertBefore(row.tr, body.children[i] || null);
    if (known && row.state !== s.state) changed(row, s);
    else if (!known && shown) note(s.name, `is new: ${s.state}`, s.state);
    row.state = s.state;
    rows.set(s.name, row);
  });
  if (!report.services.length) $('services').append(element('p', 'nothing', 'Services appear here as soon as there are any.'));
  summarize(report);
  shown = true;
}
let shown = false;

// ---- commands

const labels = { start: 'Start', stop: 'Stop', restart: 'Restart' };
const underWay = new Set(); // names of services

// offers is what makes sense for a gateway: it may change until it is asked for.
function offers(s) {
  const rests = ['down', 'disabled', 'backoff', 'parked'].includes(s.state);
  const out = [rests || s.want === 'down' ? 'start' : 'restart'];
  if (s.want === 'up' || !rests && s.state !== 'stopping') out.push('stop');
  return out;
}

// A button that waits stays in the order of the keyboard, and keeps its focus.
function commandButton(name, what) {
  const b = element('button', '', labels[what]);
  b.type = 'button';
  b.dataset.command = what;
  b.setAttribute('aria-label', `${labels[what]} ${name}`);
  b.setAttribute('aria-disabled', String(underWay.has(name)));
  return b;
}

async function command(name, what) {
  if (underWay.has(name)) return;
  const mark = (on) => {
    if (on) underWay.add(name); else underWay.delete(name);
    const row = rows.get(name);
    if (row) fill(row, row.service);
  };
  mark(true);
  tell('busy', `${name}: ${what} is under way…`);
  const [tone, text] = await ask(name, what);
  mark(false);
  tell(tone, `${name}: ${text}`);
}

// ask returns a tone and what the server said, in the words of the command line.
async function ask(name, what) {
  try {
    const token = document.querySelector('input[name="token"]').value;
    const answer = await fetch(`/api/services/${encodeURIComponent(name)}/${what}`, { method: 'POST', body: new URLSearchParams({ token }) });
    if (answer.status === 401) location.assign('/login');
    const said = await answer.json();
    return said.error ? ['bad', `failed: ${said.error.message}`] : ['good', said.outcome];
  } catch {
    return ['bad', `no answer; the ${what} may go on, its state is shown below`];
  }
}

function tell(tone, text) {
  $('outcome').className = tone;
  $('outcome').textContent = text;
}

$('rows').addEventListener('click', (e) => {
  const b = e.target.closest('button[data-command]');
  if (b) command(b.closest('tr').dataset.service, b.dataset.command);
});

// ---- changes

function changed(row, s) {
  row.tr.classList.remove('fresh');
  void row.tr.offsetWidth; // restarts the animation
  row.tr.classList.add('fresh');
  const why = s.reason || (s.last_exit && ['backoff', 'starting', 'down'].includes(s.state) ? exitWords(s.last_exit) : '');
  note(s.name, `${row.state} → ${s.state}` + (why ? `: ${why}` : ''));
}

function note(who, what) {
  const li = element('li');
  const t = element('time', '', new Date(now()).toLocaleTimeString());
  t.dateTime = new Date(now()).toISOString();
  li.append(t, element('span', 'who', who), element('span', 'what', what));
  $('log').prepend(li);
  while ($('log').children.length > maxChanges) $('log').lastChild.remove();
  $('log-empty').hidden = true;
}

// ---- summary

const count = (n, one, many) => `${n} ${n === 1 ? one : many}`;

function summarize(report) {
  const all = report.services;
  const troubled = all.filter((s) => look(s.state)[2] || (s.want === 'up' && s.state === 'down'));
  const busy = all.filter((s) => look(s.state)[0] === 'busy');
  const ready = all.filter((s) => s.state === 'ready');
  const [tone, shape, text] = headline(all, troubled, busy, ready);
  if ($('headline').textContent !== text) $('headline').textContent = text;
  $('summary').className = tone;
  $('summary').querySelector('use').setAttribute('href', '#i-' + shape);
  const by = report.manager === 'none' ? 'no supervisor' : `supervised by ${report.manager}`;
  $('detail').textContent = all.length ? `${ready.length} of ${count(all.length, 'service', 'services')} ready · ${by}` : by;
  document.title = (troubled.length ? `(${troubled.length}) ` : '') + 'Hermes – ' + text;
}

function headline(all, troubled, busy, ready) {
  if (!all.length) return ['idle', 'none', 'No services yet'];
  if (troubled.length) {
    const parked = troubled.some((s) => s.state === 'parked');
    const text = troubled.length === 1 ? is(troubled[0]) : `${troubled.length} services need attention`;
    return [parked ? 'bad' : 'warn', parked ? 'stop' : 'warn', text];
  }
  if (busy.length) return ['busy', 'work', busy.length === 1 ? is(busy[0]) : `${busy.length} services are changing`];
  if (ready.length) return ['good', 'check', 'Everything is serving'];
  return ['idle', 'off', 'Nothing is wanted up'];
}

// ---- connection

let source = null;
let quiet = 0; // timer: too long without a word
let again = 0; // timer: next attempt
let heard = 0; // when the server last spoke

function connection(state, text) {
  $('connection').className = `pill ${state}`;
  if ($('connection-text').textContent !== text) $('connection-text').textContent = text;
  document.body.classList.toggle('stale', state === 'lost');
}

function alive() {
  heard = Date.now();
  clearTimeout(quiet);
  quiet = setTimeout(lost, silence);
  connection('live', 'Live');
}

function connect() {
  clearTimeout(again);
  source?.close();
  source = new EventSource('/events');
  source.addEventListener('ping', (e) => { skew = new Date(JSON.parse(e.data).now) - Date.now(); alive(); });
  source.addEventListener('services', (e) => { alive(); $('trouble').hidden = true; show(JSON.parse(e.data)); });
  source.addEventListener('trouble', (e) => { alive(); trouble(JSON.parse(e.data).message); });
  source.onerror = lost;
}

function trouble(message) {
  $('trouble').textContent = `Cannot tell the states right now: ${message}`;
  $('trouble').hidden = false;
}

// lost says so, then asks why: a session that ended leads to the login,
// anything else is tried again.
function lost() {
  source?.close();
  clearTimeout(quiet);
  clearTimeout(again);
  const since = heard ? ` · last heard ${new Date(heard + skew).toLocaleTimeString()}` : '';
  connection('lost', 'Connection lost, retrying…' + since);
  document.title = 'Connection lost – Hermes';
  again = setTimeout(async () => {
    try {
      const answer = await fetch('/api/services', { cache: 'no-store', signal: AbortSignal.timeout(10_000) });
      if (answer.status === 401) { location.assign('/login'); return; }
    } catch { /* still away: connect fails as well and comes back here */ }
    connect();
  }, retryAfter);
}

setInterval(tick, 1000);
// A page that was asleep (phone, closed lid) reconnects at once.
document.addEventListener('visibilitychange', () => { if (!document.hidden && Date.now() - heard > silence) connect(); });
connect();
