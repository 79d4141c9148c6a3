#!/bin/sh
# Registers and runs a real amazon-ssm-agent, in the mount and process namespaces that the caller made.
# Argument: its directory. Environment: ENDPOINT ACTIVATION_ID ACTIVATION_CODE SSL_CERT_FILE HOME.
# Everything it writes goes to file systems that end with the namespace.
set -eu
mount --make-rprivate /
work=$(mktemp -d "$HOME/stock.XXXXXX")
mount -t tmpfs -o mode=755 stock "$work"
mkdir "$work/agent" "$work/etc" "$work/etc-work" "$work/home" "$work/lib" "$work/log"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$work/etc,workdir=$work/etc-work" /etc
mkdir -p /var/lib/amazon /var/log/amazon
mount --bind "$work/lib" /var/lib/amazon
mount --bind "$work/log" /var/log/amazon
mount --bind "$work/home" /home
cp "$1"/amazon-ssm-agent "$1"/ssm-* "$work/agent/"
chown -R root:root "$work/agent"
mkdir "$work/agent/configuration"
cat > "$work/agent/configuration/amazon-ssm-agent.json" <<JSON
{
  "Ssm": {"Endpoint": "$ENDPOINT"}, "Mds": {"Endpoint": "$ENDPOINT"}, "Mgs": {"Endpoint": "$ENDPOINT"},
  "Kms": {"Endpoint": "$ENDPOINT"}, "Agent": {"ServiceDomain": "stock.test:${ENDPOINT##*:}"},
  "Identity": {"ConsumptionOrder": ["OnPrem"]}
}
JSON
"$work/agent/amazon-ssm-agent" -register -code "$ACTIVATION_CODE" -id "$ACTIVATION_ID" -region us-east-1 -y
# As its unit does: it is started again when it ends, and what it has started goes on meanwhile.
while :; do "$work/agent/amazon-ssm-agent" || true; done
