// Opens examples/web in a headless Chromium, presses its buttons, and looks at what happens:
//
//   node tests/browser.mjs CHROMIUM MODEL SCREENSHOT [dark]
//
// Speaks the DevTools protocol over a pipe, so that it needs nothing but Node.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const [chromium, model, screenshot, theme] = process.argv.slice(2);
const PATIENCE_MS = 120_000;

const serve = fileURLToPath(new URL('../examples/web/serve.mjs', import.meta.url));
const server = spawn(process.execPath, [serve, model, '0'], { stdio: ['ignore', 'pipe', 'inherit'] });
const profile = await mkdtemp(join(tmpdir(), 'grug-browser-'));
const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'];
flags.push('--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage');
flags.push(`--user-data-dir=${profile}`, '--remote-debugging-pipe', '--window-size=1000,1000', 'about:blank');
const browser = spawn(chromium, flags, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });

const waiting = new Map();
const problems = [];
let sent = 0;
let rest = '';
browser.stdio[4].setEncoding('utf8').on('data', (data) => {
  const messages = (rest + data).split('\0');
  rest = messages.pop();
  for (const message of messages.map((text) => JSON.parse(text))) {
    const { id, method, params, error, result } = message;
    if (id) {
      const { resolve, reject } = waiting.get(id);
      waiting.delete(id);
      if (error) reject(new Error(error.message));
      else resolve(result);
    } else if (method === 'Runtime.exceptionThrown') {
      problems.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    } else if (method === 'Log.entryAdded' && params.entry.level === 'error') {
      problems.push(`${params.entry.text} ${params.entry.url ?? ''}`);
    }
  }
});

function send(method, params = {}, sessionId = undefined) {
  sent += 1;
  browser.stdio[3].write(`${JSON.stringify({ id: sent, method, params, sessionId })}\0`);
  return new Promise((resolve, reject) => waiting.set(sent, { resolve, reject }));
}

async function main() {
  const [line] = await createInterface({ input: server.stdout })[Symbol.asyncIterator]().next().then((r) => [r.value]);
  const { targetId } = await send('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true });
  const page = (method, params) => send(method, params, sessionId);
  await Promise.all([page('Page.enable'), page('Runtime.enable'), page('Log.enable')]);
  if (theme) {
    await page('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: theme }] });
  }

  const value = async (expression) => {
    const { result, exceptionDetails } = await page('Runtime.evaluate', { expression, returnByValue: true });
    assert.equal(exceptionDetails, undefined, `${expression}: ${exceptionDetails?.exception?.description}`);
    return result.value;
  };
  const until = async (expression) => {
    for (const end = performance.now() + PATIENCE_MS; ; await sleep(20)) {
      if (await value(expression)) return;
      if (performance.now() > end) {
        const state = await value(`document.body?.innerText`);
        throw new Error(`${expression} did not come true: ${state} ${problems.join('\n')}`);
      }
    }
  };
  const set = (id, to) =>
    value(`(() => { const it = document.getElementById('${id}'); it.value = ${JSON.stringify(to)};
      it.dispatchEvent(new Event('input')); })()`);
  const press = (id) => value(`document.getElementById('${id}').click()`);
  const text = () => value(`document.getElementById('text').textContent`);
  const isIdle = `document.getElementById('stop').disabled && !document.getElementById('write').disabled`;

  await page('Page.navigate', { url: line });
  await until(`document.getElementById('write')?.disabled === false`);
  assert.match(await value(`document.getElementById('model').textContent`), /parameters/);

  // It writes, the same for the same seed, and goes on.
  const write = async () => {
    await press('write');
    await until(`document.getElementById('page').textContent.length > document.getElementById('given').textContent.length`);
    await until(isIdle);
    return text();
  };
  await set('length', '400');
  const first = await write();
  assert.ok(first.length > 100, first);
  assert.equal(await value(`document.getElementById('given').textContent`), 'ROMEO:\n');
  assert.equal(await write(), first);
  await set('seed', '2');
  assert.notEqual(await write(), first);
  await press('more');
  await until(isIdle);
  assert.ok((await text()).length > first.length + 100);

  // Whoever presses Stop is heard at once: the page and the worker are both free for it.
  await set('length', '4000');
  await value(`{
    let turns = 0;
    const turn = () => { turns += 1; window.turns = turns; setTimeout(turn); };
    turn();
    document.getElementById('text').firstChild.textContent = '';
    // Deep in a text without an end.
    const at = new MutationObserver(() => {
      if (document.getElementById('text').textContent.length > 20) { document.getElementById('stop').click(); at.disconnect(); }
    });
    at.observe(document.getElementById('text'), { characterData: true, subtree: true, childList: true });
  }`);
  await set('seed', '1');
  await press('write');
  await until(`document.getElementById('status').textContent.startsWith('Stopped')`);
  const stopped = await text();
  assert.ok(stopped.length > 20 && stopped.length < 4000, `${stopped.length}`);
  assert.ok((await value('window.turns')) > 1);

  // A file that is no model is refused, in words, and the model that is there stays.
  await value(`{
    const data = new DataTransfer();
    data.items.add(new File(['not a model'], 'wrong.safetensors'));
    document.getElementById('file').files = data.files;
    document.getElementById('file').dispatchEvent(new Event('change'));
  }`);
  await until(`document.getElementById('status').classList.contains('error')`);
  assert.match(await value(`document.getElementById('status').textContent`), /GRUG_EFORMAT/);
  assert.match(await value(`document.getElementById('model').textContent`), /parameters/);

  await set('length', '600');
  await write();
  const { data } = await page('Page.captureScreenshot', { format: 'png' });
  await writeFile(screenshot, Buffer.from(data, 'base64'));
  const width = await value('document.documentElement.scrollWidth - document.documentElement.clientWidth');
  assert.equal(width, 0, 'the page scrolls sideways');
  assert.deepEqual(problems, []);
  console.log(`the model wrote in the browser at ${await value(`document.getElementById('speed').textContent`)}`);
}

try {
  await Promise.race([
    main(),
    new Promise((_, reject) => browser.on('exit', (code) => reject(new Error(`the browser ended: ${code}`)))),
    sleep(2 * PATIENCE_MS, null, { ref: false }).then(() => Promise.reject(new Error('the browser does not answer'))),
  ]);
} finally {
  const ended = new Promise((resolve) => browser.on('exit', resolve));
  browser.kill();
  server.kill();
  await Promise.race([ended, sleep(5000)]);
  await rm(profile, { recursive: true, force: true, maxRetries: 5 });
}
process.exit(0);
