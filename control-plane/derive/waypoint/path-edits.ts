import type { RegexMatchAndSubstituteSchema } from '#api/envoy/gen/envoy/type/matcher/v3/regex_pb.ts';
import type { HttpMatch, PathModifier } from '../../source/route-objects.ts';
import type { Fields } from './messages.ts';
import { barePrefix, quoteRegex } from './route-match.ts';

/** What is to become of a path, in the terms that Envoy has for it. `impossible`: its prefix is not what was matched. */
export type PathEdit =
  | { readonly kind: 'none' }
  | { readonly kind: 'prefix'; readonly value: string }
  | { readonly kind: 'regex'; readonly value: Fields<typeof RegexMatchAndSubstituteSchema> }
  | { readonly kind: 'impossible' };

/**
 * Puts `modifier` to a path that was matched. Envoy puts its text in the place of exactly what matched; where the Gateway API's
 * slashes come out another way, the rest of the path is taken up and written anew.
 */
export function editPath(path: HttpMatch['path'], modifier: PathModifier): PathEdit {
  if (modifier.kind === 'full')
    return { kind: 'regex', value: rewrite('^/.*$', quoteSubstitution(modifier.value)) };
  if (path !== undefined && path.kind !== 'prefix') return { kind: 'impossible' };
  const prefix = barePrefix(path?.value ?? '/');
  const replacement = barePrefix(modifier.value);
  if (prefix === replacement) return { kind: 'none' };
  if (prefix === '') return { kind: 'prefix', value: `${replacement}/` };
  if (replacement === '')
    return { kind: 'regex', value: rewrite(`^${quoteRegex(prefix)}(?:/(.*))?$`, '/\\1') };
  return { kind: 'prefix', value: replacement };
}

function rewrite(regex: string, substitution: string): Fields<typeof RegexMatchAndSubstituteSchema> {
  return { pattern: { regex }, substitution };
}

function quoteSubstitution(text: string): string {
  return text.replaceAll('\\', '\\\\');
}
