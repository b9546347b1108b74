# Stands in for the entrypoint.sh beside launch_ray.sh: steps after a cluster that it takes to be up by then.
bash launch_ray.sh || exit
ray job submit --address=auto -- echo a fleet of servers
