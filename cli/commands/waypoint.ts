import { type Command, Option } from 'commander';
import { SETTING_FLAGS, type SettingFlag } from '#waypoint/setting-flags.ts';
import { runProcess } from './process-main.ts';

export function registerWaypoint(program: Command): void {
  const command = program
    .command('waypoint')
    .description(
      "a waypoint's process: routes, splits, retries and logs the requests of a namespace's services",
    )
    .addHelpText('after', EXAMPLES);
  for (const setting of SETTING_FLAGS) command.addOption(optionOf(setting));
  command.action(async (_options: unknown, self: Command) => {
    const [{ parseWaypointSettings }, { runWaypoint }] = await Promise.all([
      import('#waypoint/settings.ts'),
      import('#waypoint/main.ts'),
    ]);
    const given = new Map(
      self.options.flatMap((option): [string, string][] => {
        const value: unknown = self.getOptionValue(option.attributeName());
        return typeof value === 'string' ? [[option.long?.slice(2) ?? '', value]] : [];
      }),
    );
    await runProcess((signal) => runWaypoint(parseWaypointSettings(given, process.env), signal));
  });
}

const EXAMPLES = `
With --state DIR, --namespace and --name the rest comes from the folder of the mesh. Elsewhere:

  tulle waypoint --namespace shop --name waypoint --control-plane https://10.0.0.2:15012 \\
    --roots-file bundle.pem --token-file token --listen 10.0.0.7:15008

It serves when it has its certificate and all of its configuration (port 15021), and drains on SIGTERM.`;

function optionOf({ flag, argument, variable, usual, description }: SettingFlag): Option {
  const notes = [
    ...(usual === undefined ? [] : [`default: ${usual}`]),
    ...(variable === undefined ? [] : [`environment: ${variable}`]),
  ];
  const text = notes.length === 0 ? description : `${description} (${notes.join('; ')})`;
  return new Option(`--${flag} <${argument}>`, text);
}
