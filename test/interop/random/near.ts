import fc from 'fast-check';
import type { Field } from '../case.ts';
import { PATH_REGEXES, VALUE_REGEXES, type WrittenMatch, type WrittenValueMatch } from './routes.ts';

const { array, constant, constantFrom, oneof } = fc;

type Text = fc.Arbitrary<string>;

const SUFFIXES = [
  '',
  '',
  '/',
  '/x',
  '/x/y',
  '/x/',
  'x',
  '//x',
  '/./x',
  '/../a',
  '/%2e%2e/a',
  '/x;v=1',
  '/a%20b',
];
const SUFFIXES_ODD = [
  '/..',
  '/.',
  '%2F',
  '/%2fx',
  '/%5C',
  '/%zz',
  '/%',
  '\\x',
  '/%00',
  '/%25',
  '/..;/a',
  '/%C3%A9',
  '/%c3%a9',
  '/é',
  '/.../x',
  '/x|y',
  '/"q"',
  '/[1]',
  '/%E2%82',
];

/** Small changes of a path that should mean the same, or should not. */
const MUTATIONS: readonly ((path: string) => string)[] = [
  (path) => path.toUpperCase(),
  (path) => path.toLowerCase(),
  (path) => `/${path}`,
  (path) => `${path}/`,
  (path) => `${path}//`,
  (path) => (path.length > 1 ? path.replace(/\/$/, '') : path),
  (path) => `/.${path}`,
  (path) => `/x/..${path}`,
  (path) => `/x/%2E%2e${path}`,
  (path) => path.replace('a', '%61'),
  (path) => path.replaceAll('/', '//'),
  (path) => path.slice(0, -1) || '/',
  (path) => `${path}${path}`,
  (path) => `${path};v=1`,
  (path) => path.replaceAll(/%[0-9a-f]{2}/gi, (code) => code.toLowerCase()),
  (path) => path.replaceAll(/%[0-9a-f]{2}/gi, (code) => code.toUpperCase()),
];

/** A path that a match takes, or nearly. */
export function pathNear({ path }: WrittenMatch): Text {
  const suffix = oneof(
    { weight: 12, arbitrary: constantFrom(...SUFFIXES) },
    { weight: 1, arbitrary: constantFrom(...SUFFIXES_ODD) },
  );
  const base: Text =
    path.type === 'RegularExpression'
      ? constantFrom(...(PATH_REGEXES.get(path.value) ?? ['/']))
      : path.type === 'Exact'
        ? oneof(
            { weight: 4, arbitrary: constant(path.value) },
            { weight: 1, arbitrary: suffix.map((end) => path.value + end) },
          )
        : suffix.map((end) =>
            path.value.endsWith('/') ? path.value + end.replace(/^\//, '') : path.value + end,
          );
  const change = constantFrom(...MUTATIONS);
  return oneof(
    { weight: 3, arbitrary: base },
    { weight: 1, arbitrary: fc.tuple(base, change).map(([text, by]) => by(text)) },
    { weight: 1, arbitrary: fc.tuple(base, change, change).map(([text, by, then]) => then(by(text))) },
  );
}

function valueNear({ type, value }: WrittenValueMatch): Text {
  const good: Text =
    type === 'Exact' ? constant(value) : constantFrom(...(VALUE_REGEXES.get(value) ?? ['x']));
  const bad = constantFrom('', 'x', `${value}x`, value.toUpperCase(), `${value},${value}`, 'l'.repeat(2000));
  return oneof({ weight: 5, arbitrary: good }, { weight: 1, arbitrary: bad });
}

/** Some of what is wanted, perhaps twice, perhaps in other letters, and something else. */
export function fieldsNear(
  wanted: readonly WrittenValueMatch[],
  others: fc.Arbitrary<Field>,
): fc.Arbitrary<readonly Field[]> {
  const near = wanted.map((match) =>
    oneof(
      { weight: 8, arbitrary: valueNear(match).map((value): readonly Field[] => [[match.name, value]]) },
      {
        weight: 2,
        arbitrary: fc.tuple(valueNear(match), valueNear(match)).map(([first, second]): readonly Field[] => [
          [match.name, first],
          [match.name.toUpperCase(), second],
        ]),
      },
      { weight: 1, arbitrary: constant<readonly Field[]>([]) },
    ),
  );
  return fc
    .tuple(fc.tuple(...near), array(others, { maxLength: 2 }))
    .map(([lists, more]) => [...lists.flat(), ...more]);
}
