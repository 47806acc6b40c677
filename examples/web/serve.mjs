#!/usr/bin/env node
// Serves the page, libgrug for WebAssembly and a model on this machine:
//
//   scripts/wasm && node examples/web/serve.mjs model.safetensors [PORT]
//
// Any static file server does: put this folder, bindings/wasm as grug/ and a model as model.safetensors on it.
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname } from 'node:path';
import { pipeline } from 'node:stream';
import { fileURLToPath } from 'node:url';

const TYPES = { '.html': 'text/html', '.css': 'text/css', '.mjs': 'text/javascript', '.wasm': 'application/wasm' };
const [model, port = '8080'] = process.argv.slice(2);
const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** The only files there are: nothing of an address becomes part of a path. */
const files = new Map([['/', here('index.html')]]);
for (const name of ['index.html', 'style.css', 'app.mjs', 'worker.mjs']) files.set(`/${name}`, here(name));
for (const name of ['index.mjs', 'library.mjs', 'sampler.mjs', 'grug.wasm']) {
  files.set(`/grug/${name}`, here(`../../bindings/wasm/${name}`));
}
if (model) files.set('/model.safetensors', model);

const server = createServer(async (request, response) => {
  try {
    const file = files.get(new URL(request.url, 'http://localhost').pathname);
    const { size } = await stat(file);
    const type = TYPES[extname(file)] ?? 'application/octet-stream';
    response.writeHead(200, { 'content-type': type, 'content-length': size, 'cache-control': 'no-cache' });
    pipeline(createReadStream(file), response, () => {});
  } catch {
    response.writeHead(404, { 'content-type': 'text/plain' }).end('not here\n');
  }
});
server.listen(Number(port), 'localhost', () => console.log(`http://localhost:${server.address().port}/`));
