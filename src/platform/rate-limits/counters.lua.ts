/** The scripts by which backends share counters in Redis: each checks and changes in one step. Their keys lie in one hash slot. */

/**
 * Takes one from every window, or from none of them.
 *
 * KEYS    the counter of each window
 * ARGV    of each window: its quota, its length in ms
 * result  1 if taken, else 0; then of each window: what is left, ms until it is full again
 * bounds  O(windows); a counter never passes its quota and lives as long as its window
 */
export const TAKE_ALL_OR_NONE = `
local granted = 1
for i, key in ipairs(KEYS) do
  if tonumber(redis.call('GET', key) or 0) >= tonumber(ARGV[2 * i - 1]) then granted = 0 end
end
local answer = { granted }
for i, key in ipairs(KEYS) do
  local quota, length = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  if granted == 1 and redis.call('INCR', key) == 1 then redis.call('PEXPIRE', key, length) end
  local rest = redis.call('PTTL', key)
  answer[2 * i] = math.max(0, quota - tonumber(redis.call('GET', key) or 0))
  answer[2 * i + 1] = rest < 0 and length or rest
end
return answer`;

/**
 * Gives back one of what was taken.
 *
 * KEYS    the counters
 * result  how many there were to give it back to: a window that has ended since has no counter
 * bounds  O(windows); a counter never falls below zero
 */
export const GIVE_BACK = `
local returned = 0
for _, key in ipairs(KEYS) do
  if tonumber(redis.call('GET', key) or 0) > 0 then
    redis.call('DECR', key)
    returned = returned + 1
  end
end
return returned`;
