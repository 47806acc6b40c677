// The page: what is pressed goes to the worker, what the worker writes is shown.
const $ = (id) => document.getElementById(id);
const worker = new Worker(new URL('worker.mjs', import.meta.url), { type: 'module' });

let ready = false;
let described = 'No model yet';
let busy = false;
let started = 0;

function show() {
  $('write').disabled = !ready || busy;
  $('more').disabled = !ready || busy || $('page').textContent === '';
  $('stop').disabled = !busy;
  document.body.classList.toggle('writing', busy);
}

function say(text, isError = false) {
  $('status').textContent = text;
  $('status').classList.toggle('error', isError);
}

const size = (n) => (n < 1e6 ? `${Math.round(n / 1e3)} kB` : `${(n / 1e6).toFixed(1)} MB`);
const count = (n) => (n < 1e6 ? `${Math.round(n / 1e3)} thousand` : `${(n / 1e6).toFixed(1)} million`);

const arrived = {
  progress(fraction) {
    $('progress').hidden = fraction >= 1;
    $('progress').value = fraction;
  },
  model(info) {
    ready = true;
    $('progress').hidden = true;
    described = `${count(info.params)} parameters, ${size(info.weightBytes)}, looks back ${info.contextBytes} bytes`;
    $('model').textContent = described;
    say('');
    show();
  },
  text(text, { bytes }) {
    $('text').firstChild.appendData(text);
    const seconds = (performance.now() - started) / 1000;
    if (seconds > 0.2) $('speed').textContent = `${Math.round(bytes / seconds)} bytes a second`;
  },
  done(reason) {
    busy = false;
    say(reason === 'stopped' ? 'Stopped. It can go on from here.' : '');
    show();
  },
  error(message) {
    busy = false;
    $('progress').hidden = true;
    $('model').textContent = described;
    say(message, true);
    show();
  },
};
worker.onmessage = ({ data }) => {
  const kind = Object.keys(data)[0];
  arrived[kind](data[kind], data);
};
worker.onerror = (event) => arrived.error(event.message || 'the worker did not start');

function load(source, name) {
  $('model').textContent = `Loading ${name}…`;
  worker.postMessage({ load: source }, source instanceof ArrayBuffer ? [source] : []);
}

function begin(kind) {
  const prompt = $('prompt').value;
  const options = {
    prompt,
    temperature: Number($('temperature').value),
    topP: Number($('top-p').value),
    seed: Math.max(0, Math.trunc(Number($('seed').value)) || 0),
    maxBytes: Number($('length').value),
  };
  if (kind === 'write') {
    $('given').textContent = prompt;
    $('text').replaceChildren(new Text());
  }
  busy = true;
  started = performance.now();
  say('');
  show();
  worker.postMessage({ [kind]: options });
}

$('form').onsubmit = (event) => {
  event.preventDefault();
  begin('write');
};
$('more').onclick = () => {
  // Another seed, or what it wrote first would be drawn again.
  $('seed').value = Number($('seed').value) + 1;
  begin('more');
};
$('stop').onclick = () => worker.postMessage({ stop: true });
$('prompt').onkeydown = (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && !$('write').disabled) begin('write');
};

async function open(file) {
  if (file) load(await file.arrayBuffer(), file.name);
}
$('file').onchange = () => open($('file').files[0]);
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  open(event.dataTransfer.files[0]);
};

for (const [id, digits] of [['temperature', 2], ['top-p', 2], ['length', 0]]) {
  const update = () => ($(`${id}-value`).textContent = Number($(id).value).toFixed(digits));
  $(id).oninput = update;
  update();
}
show();
// What serve.mjs was given, or ?model=ADDRESS.
const address = new URL(new URLSearchParams(location.search).get('model') ?? 'model.safetensors', location.href);
load(String(address), 'the model');
