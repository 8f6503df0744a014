# Installs the package $1 and leaves the machine's services as they were: none is started, and none that
# was not enabled before is enabled for the next boot. $2 is empty, or where a test has its system.
#
# It writes nothing before its end: whoever started it may be gone by then, and apt must not end in
# the middle for that.
root=$2
policy=$root/usr/sbin/policy-rc.d
mark="# made by wiber-compare while it installs a package"
work=$(mktemp -d) || exit 1
is_ours=

# What starts at boot, by name: others' links may get new numbers. A timer is no server.
enabled() {
    {
        find "$root/etc/systemd/system" -type l ! -lname /dev/null ! -lname '*.timer' -printf '%l\n' |
            sed 's|.*/||; s|^|unit |'
        find "$root"/etc/rc[2-5S].d -type l -name 'S[0-9][0-9]*' -printf '%f\n' | sed 's|^S..|init |'
    } 2>/dev/null | sort -u
}

# Does what `systemctl disable` does, with and without systemd. With links that end a service, and
# not without any, the package's next version leaves it disabled.
disable() {
    case $1 in
    unit) find "$root/etc/systemd/system" -type l -lname "*/$2" -exec rm -f {} + ;;
    init) update-rc.d "$2" disable ;;
    esac
}

finish() {
    code=$?
    trap '' HUP INT TERM
    if [ -e "$work/before" ]; then
        enabled | comm -13 "$work/before" - >"$work/new"
        while read -r kind name; do
            disable "$kind" "$name" </dev/null >/dev/null 2>&1
        done <"$work/new"
        if [ -s "$work/new" ] && [ -z "$root" ] && [ -d /run/systemd/system ]; then
            systemctl daemon-reload >/dev/null 2>&1
        fi
        left=$(enabled | comm -13 "$work/before" - | tr '\n' ' ')
        if [ -n "$left" ]; then
            code=1
            echo "failed to disable $left" >>"$work/said"
        fi
    fi
    if [ -n "$is_ours" ]; then rm -f "$policy"; fi
    said=$(grep -v '^[[:space:]]*$' "$work/said" 2>/dev/null | tail -n 1)
    rm -rf "$work"
    if [ "$code" -ne 0 ]; then printf '%s\n' "$said" >&2; fi
    exit "$code"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

# One that was killed by `kill -9` has left it.
if grep -qxF "$mark" "$policy" 2>/dev/null; then rm -f "$policy"; fi
if [ -e "$policy" ] || [ -L "$policy" ]; then
    # Somebody's own is left alone. It has to say no, as ours would.
    for name in any "$1"; do
        "$policy" "$name" start >/dev/null 2>&1
        if [ $? -ne 101 ]; then
            echo "$policy lets packages start services" >"$work/said"
            exit 1
        fi
    done
else
    is_ours=yes
    { printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy" && chmod 755 "$policy"; } \
        2>"$work/said" || exit 1
fi
enabled >"$work/before"
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
get() { apt-get install -qq -y --no-install-recommends "$1"; }
# The lists of packages may be old, or not there at all.
{ get "$1" || { apt-get update -qq && get "$1"; }; } </dev/null >"$work/said" 2>&1
