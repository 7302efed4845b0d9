# apt-get as root, after any other installation has ended (unattended-upgrades runs at boot).
# Sourced by ./steerlab and by requirements.py. apt's own DPkg::Lock::Timeout waits without a message,
# and not for the lists.

as_root() {
  if [ "$EUID" = 0 ]; then "$@"; else sudo -- "$@"; fi
}

apt() { # WORDS: prints the last lines of a failure
  local said left=150
  until said=$(as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -qq "$@" 2>&1 </dev/null); do
    case $said in
      *'get lock'* | *'frontend lock'*) ;;
      *) left=0 ;;
    esac
    if [ $left = 0 ]; then
      tail -n 5 <<<"$said"
      return 1
    fi
    [ $left -lt 150 ] ||
      echo "steerlab: waiting up to 5 minutes for another installation: ${said%%$'\n'*}" >&2
    left=$((left - 1))
    sleep 2
  done
}
