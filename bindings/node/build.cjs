// Compiles the addon with the system's C compiler, and puts libgrug.a into it. Where the library is: GRUG_PREFIX (a
// prefix of scripts/install), else pkg-config.
'use strict';
const { execFileSync } = require('node:child_process');
const { existsSync, readdirSync } = require('node:fs');
const path = require('node:path');

const headers = [
  process.env.npm_config_nodedir && path.join(process.env.npm_config_nodedir, 'include/node'),
  path.resolve(process.execPath, '../../include/node'),
  '/usr/include/node',
].find((folder) => folder && existsSync(path.join(folder, 'node_api.h')));
if (!headers) {
  console.error('grug: cannot find node_api.h; set npm_config_nodedir to where Node is installed');
  process.exit(1);
}

let prefix = process.env.GRUG_PREFIX;
if (!prefix) {
  try {
    // It writes blanks as a shell wants them.
    const shown = execFileSync('pkg-config', ['--variable=prefix', 'grug'], { encoding: 'utf8' });
    prefix = shown.trim().replace(/\\(.)/g, '$1');
  } catch {
    console.error('grug: cannot find libgrug; install it with scripts/install PREFIX and set GRUG_PREFIX');
    process.exit(1);
  }
}

const folder = path.join(__dirname, 'src');
const sources = readdirSync(folder).filter((name) => name.endsWith('.c')).map((name) => path.join(folder, name));
// Of libgrug.a, what is used goes into the addon, and no name of it out again.
const system =
  process.platform === 'darwin'
    ? ['-undefined', 'dynamic_lookup']
    : ['-Wl,--gc-sections,--exclude-libs,ALL', '-s', '-lpthread', '-ldl', '-lm'];
execFileSync(
  process.env.CC || 'cc',
  [
    '-std=c11', '-Wall', '-Wextra', '-O2', '-fPIC', '-shared', '-DNAPI_VERSION=8', '-DGRUG_STATIC',
    `-I${headers}`, `-I${path.join(prefix, 'include')}`, ...sources,
    '-o', path.join(__dirname, 'grug.node'), path.join(prefix, 'lib/libgrug.a'), ...system,
  ],
  { stdio: 'inherit' },
);
